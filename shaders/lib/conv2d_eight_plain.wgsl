// What lib/gemm_matrix and lib/weight_matrix read of x, eight channels at a time, where x is read as it stands.
//
//   raw8(at, ci)          eight numbers as they lie in memory; `at` is a pixel times pixel_stride()
//   norm8(ci)             what they are made of, if anything
//   made8(norm, raw)      the numbers of x
// @include eight

@group(0) @binding(1) var<storage, read> x8: array<Eight>;
@group(0) @binding(2) var<storage, read> gy8: array<Eight>;

@group(0) @binding(2) var<storage, read> weight_by_output8: array<Eight>; // [tap, co, ci]

fn raw8(at: u32, ci: u32) -> Eight { return x8[(at + ci) / 8u]; }
fn norm8(ci: u32) -> u32 { return ci; }
fn made8(none: u32, raw: Eight) -> Eight { return raw; }
