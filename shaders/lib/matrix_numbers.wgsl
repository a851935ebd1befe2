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
fn quad_of_a(at: u32) -> vec4<f32> {
    return vec4<f32>(Element4(matrix_a[at], matrix_a[at + 1u], matrix_a[at + 2u], matrix_a[at + 3u]));
}
fn quad_of_b(at: u32) -> vec4<f32> {
    return vec4<f32>(Element4(matrix_b[at], matrix_b[at + 1u], matrix_b[at + 2u], matrix_b[at + 3u]));
}
