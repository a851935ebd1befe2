// What lib/matrix_units has, in plain WGSL: so that all the rest of a kernel for matrix units runs, and is checked, on every
// device. It is much slower than the tiles of lib/gemm_tile.
//
// LANES invocations in a row pretend to be a subgroup. Each has every LANES-th number of the sums, in the order of rows; a
// and b stay in workgroup memory. LANES and UNIT stand in lib/matrix_plain16 and lib/matrix_plain8.

/// Numbers of a matrix that an invocation has.
const OWN: u32 = UNIT * UNIT / LANES;

/// A matrix in workgroup memory: from one row (column of b) to the next, and from one k to the next; which of the sums the invocation that
/// reads it has, and what turns_of says.
struct Place { at: u32, row: u32, k: u32, lane: u32, turns: u32 }

alias MatrixA = Place;
alias MatrixB = Place;
alias MatrixC = array<f32, OWN>;

struct Invocation {
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lid: u32,
}

fn subgroup_of(me: Invocation) -> u32 { return me.lid / LANES; }
fn subgroups_of(me: Invocation) -> u32 { return MATRIX_GROUP / LANES * turns_of(me); }

/// 1, of which no compiler knows: it would write out the loops below, and some take minutes for that.
fn turns_of(me: Invocation) -> u32 { return min(me.groups.x, 1u); }

fn place(me: Invocation, at: u32, row: u32, k: u32) -> Place { return Place(at, row, k, me.lid % LANES, turns_of(me)); }
fn strips_of_a(me: Invocation, at: u32) -> MatrixA { return place(me, at, STRIP, 1u); }
fn strips_of_b(me: Invocation, at: u32) -> MatrixB { return place(me, at, STRIP, 1u); }
fn across_a(me: Invocation, at: u32) -> MatrixA { return place(me, at, 1u, ACROSS_A); }
fn across_b(me: Invocation, at: u32) -> MatrixB { return place(me, at, 1u, ACROSS_B); }

/// Adds the products of two matrices of a, one below the other, with four of b.
fn add_products(a0: MatrixA, a1: MatrixA, b: Columns, sums: ptr<function, Panel>) {
    for (var i = 0u; i < OWN * a0.turns; i++) {
        let row = (i * LANES + a0.lane) / UNIT * a0.row;
        let col = (i * LANES + a0.lane) % UNIT * b.b0.row;
        for (var k = 0u; k < UNIT * a0.turns; k++) {
            let upper = number_of_a(a0.at + row + k * a0.k);
            let lower = number_of_a(a1.at + row + k * a0.k);
            let at = col + k * b.b0.k;
            let numbers = vec4(number_of_b(b.b0.at + at), number_of_b(b.b1.at + at), number_of_b(b.b2.at + at), number_of_b(b.b3.at + at));
            (*sums).c00[i] += upper * numbers.x;
            (*sums).c01[i] += upper * numbers.y;
            (*sums).c02[i] += upper * numbers.z;
            (*sums).c03[i] += upper * numbers.w;
            (*sums).c10[i] += lower * numbers.x;
            (*sums).c11[i] += lower * numbers.y;
            (*sums).c12[i] += lower * numbers.z;
            (*sums).c13[i] += lower * numbers.w;
        }
    }
}

fn leave_matrix(me: Invocation, c: MatrixC, at: u32) {
    var sum = c;
    let own = OWN * turns_of(me);
    for (var i = 0u; i < own; i++) {
        let number = i * LANES + me.lid % LANES;
        matrix_c[at + number / UNIT * C_ROW + number % UNIT] = sum[i];
    }
}
