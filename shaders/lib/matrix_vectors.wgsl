// Workgroup memory of a and b as pairs of vectors, so that eight numbers are written at a time. Vulkan's matrices may begin at a vector of an
// array, and an array it has to be: how a matrix of two vectors lies in workgroup memory is the compiler's own affair.
var<workgroup> matrix_a: array<array<Element4, 2>, MATRIX_A_SIZE / 8u>;
var<workgroup> matrix_b: array<array<Element4, 2>, MATRIX_B_SIZE / 8u>;

fn put_a8(at: u32, v: Eight) { matrix_a[at / 8u] = array<Element4, 2>(v[0], v[1]); }
fn put_b8(at: u32, v: Eight) { matrix_b[at / 8u] = array<Element4, 2>(v[0], v[1]); }
fn number_of_a(at: u32) -> f32 { return f32(matrix_a[at / 8u][at / 4u % 2u][at % 4u]); }
fn number_of_b(at: u32) -> f32 { return f32(matrix_b[at / 8u][at / 4u % 2u][at % 4u]); }
