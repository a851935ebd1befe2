// What lib/gemm_matrix and lib/weight_matrix read of x, eight channels at a time, where the including file has x itself as x4.
//
//   raw8(at, ci)          eight numbers as they lie in memory; `at` is a pixel times pixel_stride()
//   norm8(ci)             what they are made of, if anything
//   made8(norm, raw)      the numbers of x
// @include eight

@group(0) @binding(2) var<storage, read> weight_by_output4: array<Element4>; // [tap, co, ci]

/// The weights of eight channels of x.
fn weight8(tap: u32, ci: u32, co: u32) -> Eight {
    let at = ((tap * params.out_c + co) * params.in_c + ci) / 4u;
    return Eight(weight_by_output4[at], weight_by_output4[at + 1u]);
}

fn raw8(at: u32, ci: u32) -> Eight { return Eight(x4[(at + ci) / 4u], x4[(at + ci) / 4u + 1u]); }
fn norm8(ci: u32) -> u32 { return ci; }
fn made8(none: u32, raw: Eight) -> Eight { return raw; }
