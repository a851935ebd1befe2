// Workgroup memory of a and b as vectors of eight: one write for eight numbers. Vulkan's matrices may begin at a vector.
var<workgroup> matrix_a: array<Eight, MATRIX_A_SIZE / 8u>;
var<workgroup> matrix_b: array<Eight, MATRIX_B_SIZE / 8u>;

fn put_a8(at: u32, v: Eight) { matrix_a[at / 8u] = v; }
fn put_b8(at: u32, v: Eight) { matrix_b[at / 8u] = v; }
fn number_of_a(at: u32) -> f32 { return f32(matrix_a[at / 8u][at / 4u % 2u][at % 4u]); }
fn number_of_b(at: u32) -> f32 { return f32(matrix_b[at / 8u][at / 4u % 2u][at % 4u]); }
