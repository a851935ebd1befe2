// Workgroup memory of a and b number by number, as Metal's matrices want it.
var<workgroup> matrix_a: array<Element, MATRIX_A_SIZE>;
var<workgroup> matrix_b: array<Element, MATRIX_B_SIZE>;

fn put_a8(at: u32, v: Eight) {
    for (var i = 0u; i < 4u; i++) {
        matrix_a[at + i] = v[0][i];
        matrix_a[at + 4u + i] = v[1][i];
    }
}
fn put_b8(at: u32, v: Eight) {
    for (var i = 0u; i < 4u; i++) {
        matrix_b[at + i] = v[0][i];
        matrix_b[at + 4u + i] = v[1][i];
    }
}
fn number_of_a(at: u32) -> f32 { return f32(matrix_a[at]); }
fn number_of_b(at: u32) -> f32 { return f32(matrix_b[at]); }
