// As lib/conv2d_eight_plain, where the including file has an x that still has to be normalised (lib/batch_norm_table4).
// @include eight

@group(0) @binding(2) var<storage, read> weight_by_output4: array<Element4>; // [tap, co, ci]

/// The weights of eight channels of x.
fn weight8(tap: u32, ci: u32, co: u32) -> Eight {
    let at = ((tap * params.out_c + co) * params.in_c + ci) / 4u;
    return Eight(weight_by_output4[at], weight_by_output4[at + 1u]);
}

struct Norm8 {
    first: Norm4,
    second: Norm4,
}

fn raw8(at: u32, ci: u32) -> Eight { return Eight(x4[(at + ci) / 4u], x4[(at + ci) / 4u + 1u]); }
fn norm8(ci: u32) -> Norm8 {
    let quads = params.in_c / 4u;
    return Norm8(norm4(ci / 4u, quads), norm4(ci / 4u + 1u, quads));
}
fn made8(norm: Norm8, raw: Eight) -> Eight {
    return Eight(
        Element4(normalised4(norm.first, vec4<f32>(raw.first))), Element4(normalised4(norm.second, vec4<f32>(raw.second))),
    );
}
