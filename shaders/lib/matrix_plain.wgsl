// What lib/matrix_units has, in plain WGSL: so that all the rest of a kernel for matrix units runs, and is checked, on every
// device. It is much slower than the tiles of lib/gemm_tile.
//
// LANES invocations in a row pretend to be a subgroup. Each has every LANES-th number of the sums, in the order of rows; a
// and b stay in workgroup memory. LANES and UNIT stand in lib/matrix_plain16 and lib/matrix_plain8.

/// Numbers of a matrix that an invocation has.
const OWN: u32 = UNIT * UNIT / LANES;

/// A matrix in workgroup memory: from one row (column of b) to the next, and from one k to the next; and which of the sums the invocation
/// that reads it has.
struct Place { at: u32, row: u32, k: u32, lane: u32 }

alias MatrixA = Place;
alias MatrixB = Place;
alias MatrixC = array<f32, OWN>;

struct Invocation {
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lid: u32,
}

fn subgroup_of(me: Invocation) -> u32 { return me.lid / LANES; }
fn subgroups_of(me: Invocation) -> u32 { return MATRIX_GROUP / LANES; }

fn strips_of_a(me: Invocation, at: u32) -> MatrixA { return Place(at, STRIP, 1u, me.lid % LANES); }
fn strips_of_b(me: Invocation, at: u32) -> MatrixB { return Place(at, STRIP, 1u, me.lid % LANES); }
fn across_a(me: Invocation, at: u32) -> MatrixA { return Place(at, 1u, ACROSS_A, me.lid % LANES); }
fn across_b(me: Invocation, at: u32) -> MatrixB { return Place(at, 1u, ACROSS_B, me.lid % LANES); }

fn multiply_add(a: MatrixA, b: MatrixB, c: MatrixC) -> MatrixC {
    var sum = c;
    for (var i = 0u; i < OWN; i++) {
        let row = (i * LANES + a.lane) / UNIT;
        let col = (i * LANES + a.lane) % UNIT;
        for (var k = 0u; k < UNIT; k++) {
            sum[i] += number_of_a(a.at + row * a.row + k * a.k) * number_of_b(b.at + col * b.row + k * b.k);
        }
    }
    return sum;
}

fn leave_matrix(me: Invocation, c: MatrixC, at: u32) {
    var sum = c;
    for (var i = 0u; i < OWN; i++) {
        let number = i * LANES + me.lid % LANES;
        matrix_c[at + number / UNIT * C_ROW + number % UNIT] = sum[i];
    }
}
