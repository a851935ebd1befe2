// Workgroup memory of a and b as vectors of four: one write for four numbers. Vulkan's matrices may begin at a vector.

/// Numbers that stand in one place of the arrays.
const STEP: u32 = 4u;
var<workgroup> matrix_a: array<Element4, MATRIX_A_SIZE / STEP>;
var<workgroup> matrix_b: array<Element4, MATRIX_B_SIZE / STEP>;

fn put_a(at: u32, v: Element4) { matrix_a[at / STEP] = v; }
fn put_b(at: u32, v: Element4) { matrix_b[at / STEP] = v; }
fn number_of_a(at: u32) -> f32 { return f32(matrix_a[at / STEP][at % STEP]); }
fn number_of_b(at: u32) -> f32 { return f32(matrix_b[at / STEP][at % STEP]); }
