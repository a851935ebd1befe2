// As lib/conv2d_eight_plain, where x is two tensors side by side.
// @include eight

@group(0) @binding(1) var<storage, read> a8: array<Eight>;
@group(0) @binding(2) var<storage, read> b8: array<Eight>;
@group(0) @binding(3) var<storage, read> gy8: array<Eight>;

@group(0) @binding(3) var<storage, read> weight_by_output8: array<Eight>; // [tap, co, ci]

fn raw8(pixel: u32, ci: u32) -> Eight {
    if ci < params.split { return a8[(pixel * params.split + ci) / 8u]; }
    return b8[(pixel * (params.in_c - params.split) + ci - params.split) / 8u];
}
fn norm8(ci: u32) -> u32 { return ci; }
fn made8(none: u32, raw: Eight) -> Eight { return raw; }
