// Matrix units as Apple's GPUs have them, through Metal; and Mesa's software Vulkan, from version 26 on.
// @include matrix_units
// @include matrix_numbers

const UNIT: u32 = 8u;
alias MatrixA = coop_mat8x8<f16, A>;
alias MatrixB = coop_mat8x8<f16, B>;
alias MatrixC = coop_mat8x8<f32, C>;
