// Matrix units as NVIDIA's and AMD's cards have them, through Vulkan.
// @include matrix_units
// @include matrix_vectors

const UNIT: u32 = 16u;
alias MatrixA = coop_mat16x16<f16, A>;
alias MatrixB = coop_mat16x16<f16, B>;
alias MatrixC = coop_mat16x16<f32, C>;
