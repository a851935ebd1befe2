// Matrix units as NVIDIA's and AMD's cards have them, through Vulkan.
// @include matrix_units
// @include matrix_vectors

const UNIT: u32 = 16u;
alias MatrixA = coop_mat16x16<f16, A>;
alias MatrixB = coop_mat16x16<f16, B>;
alias MatrixC = coop_mat16x16<f32, C>;

// Lengths of rows are counted in what the first place is: a vector of four.
fn strips_of_a(me: Invocation, at: u32) -> MatrixA { return coopLoadT<MatrixA>(&matrix_a[at / 8u][0], STRIP / 4u); }
fn strips_of_b(me: Invocation, at: u32) -> MatrixB { return coopLoad<MatrixB>(&matrix_b[at / 8u][0], STRIP / 4u); }
fn across_a(me: Invocation, at: u32) -> MatrixA { return coopLoad<MatrixA>(&matrix_a[at / 8u][0], ACROSS_A / 4u); }
fn across_b(me: Invocation, at: u32) -> MatrixB { return coopLoadT<MatrixB>(&matrix_b[at / 8u][0], ACROSS_B / 4u); }
