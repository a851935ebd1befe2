// The step of every kernel that keeps the sums of 8 x 8 products in registers and reads both sides as vectors.

/// sums[r][c] += a[r] * b[c], for eight numbers a and eight numbers b, each as two vectors.
fn add_outer_product(sums: ptr<function, array<array<vec4<f32>, 2>, 8>>, a: array<vec4<f32>, 2>, b: array<vec4<f32>, 2>) {
    for (var i = 0u; i < 4u; i++) {
        (*sums)[i][0] += a[0][i] * b[0];
        (*sums)[i][1] += a[0][i] * b[1];
        (*sums)[i + 4u][0] += a[1][i] * b[0];
        (*sums)[i + 4u][1] += a[1][i] * b[1];
    }
}
