// Matrix units as Apple's GPUs have them, through Metal; and Mesa's software Vulkan, from version 26 on.
// @include matrix_units
// @include matrix_numbers

const UNIT: u32 = 8u;
alias MatrixA = coop_mat8x8<f16, A>;
alias MatrixB = coop_mat8x8<f16, B>;
alias MatrixC = coop_mat8x8<f32, C>;

fn strips_of_a(me: Invocation, at: u32) -> MatrixA { return coopLoadT<MatrixA>(&matrix_a[at], STRIP); }
fn strips_of_b(me: Invocation, at: u32) -> MatrixB { return coopLoad<MatrixB>(&matrix_b[at], STRIP); }
fn across_a(me: Invocation, at: u32) -> MatrixA { return coopLoad<MatrixA>(&matrix_a[at], ACROSS_A); }
fn across_b(me: Invocation, at: u32) -> MatrixB { return coopLoadT<MatrixB>(&matrix_b[at], ACROSS_B); }
