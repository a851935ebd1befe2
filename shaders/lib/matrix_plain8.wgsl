// Matrices of lib/matrix_units8 in plain WGSL, by subgroups that take turns.
// @include matrix_plain
// @include matrix_vectors

const UNIT: u32 = 8u;
const LANES: u32 = 32u;
