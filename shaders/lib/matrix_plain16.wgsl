// Matrices of lib/matrix_units16 in plain WGSL, by subgroups of which there are more than panels.
// @include matrix_plain
// @include matrix_numbers

const UNIT: u32 = 16u;
const LANES: u32 = 16u;
