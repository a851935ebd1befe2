// Workgroup memory of a and b number by number, as Metal's matrices want it.

/// Numbers that stand in one place of the arrays.
const STEP: u32 = 1u;
var<workgroup> matrix_a: array<Element, MATRIX_A_SIZE>;
var<workgroup> matrix_b: array<Element, MATRIX_B_SIZE>;

fn put_a(at: u32, v: Element4) {
    for (var i = 0u; i < 4u; i++) { matrix_a[at + i] = v[i]; }
}
fn put_b(at: u32, v: Element4) {
    for (var i = 0u; i < 4u; i++) { matrix_b[at + i] = v[i]; }
}
fn number_of_a(at: u32) -> f32 { return f32(matrix_a[at]); }
fn number_of_b(at: u32) -> f32 { return f32(matrix_b[at]); }
