// As lib/conv2d_eight_plain, where x is two tensors side by side.
// @include eight

@group(0) @binding(3) var<storage, read> weight_by_output4: array<Element4>; // [tap, co, ci]

/// The weights of eight channels of x.
fn weight8(tap: u32, ci: u32, co: u32) -> Eight {
    let at = ((tap * params.out_c + co) * params.in_c + ci) / 4u;
    return Eight(weight_by_output4[at], weight_by_output4[at + 1u]);
}

fn raw8(pixel: u32, ci: u32) -> Eight {
    if ci < params.split {
        let at = (pixel * params.split + ci) / 4u;
        return Eight(a4[at], a4[at + 1u]);
    }
    let at = (pixel * (params.in_c - params.split) + ci - params.split) / 4u;
    return Eight(b4[at], b4[at + 1u]);
}
fn norm8(ci: u32) -> u32 { return ci; }
fn made8(none: u32, raw: Eight) -> Eight { return raw; }
