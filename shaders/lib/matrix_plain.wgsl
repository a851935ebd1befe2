// What lib/matrix_units has, in plain WGSL: so that all the rest of a kernel for matrix units runs, and is checked, on every
// device. It is much slower than the tiles of lib/gemm_tile.
//
// LANES invocations in a row pretend to be a subgroup. Each has every LANES-th number of the sums, in the order of rows; a
// and b stay in workgroup memory. LANES and UNIT stand in lib/matrix_plain16 and lib/matrix_plain8.

/// Numbers of a matrix that an invocation has.
const SHARE: u32 = UNIT * UNIT / LANES;

/// A matrix in workgroup memory, and which of the sums the invocation that reads it has.
struct Place { at: u32, lane: u32 }

alias MatrixA = Place;
alias MatrixB = Place;
alias MatrixC = array<f32, SHARE>;

struct Invocation {
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lid: u32,
}

fn subgroup_of(me: Invocation) -> u32 { return me.lid / LANES; }
fn subgroups_of(me: Invocation) -> u32 { return MATRIX_GROUP / LANES; }

fn load_matrix_a(me: Invocation, at: u32) -> MatrixA { return Place(at, me.lid % LANES); }
fn load_matrix_b(me: Invocation, at: u32) -> MatrixB { return Place(at, me.lid % LANES); }

fn multiply_add(a: MatrixA, b: MatrixB, c: MatrixC) -> MatrixC {
    var sum = c;
    for (var i = 0u; i < SHARE; i++) {
        let row = (i * LANES + a.lane) / UNIT;
        let col = (i * LANES + a.lane) % UNIT;
        for (var k = 0u; k < UNIT; k += 4u) {
            sum[i] += dot(quad_of_a(a.at + row * STRIP + k), quad_of_b(b.at + col * STRIP + k));
        }
    }
    return sum;
}

fn leave_matrix(me: Invocation, c: MatrixC, at: u32) {
    var sum = c;
    for (var i = 0u; i < SHARE; i++) {
        let number = i * LANES + me.lid % LANES;
        matrix_c[at + number / UNIT * C_ROW + number % UNIT] = sum[i];
    }
}
