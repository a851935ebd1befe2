// As lib/conv2d_eight_plain, where the including file has an x that still has to be normalised (lib/batch_norm_table4).
// @include eight

@group(0) @binding(1) var<storage, read> x8: array<Eight>;
@group(0) @binding(2) var<storage, read> gy8: array<Eight>;

@group(0) @binding(2) var<storage, read> weight_by_output8: array<Eight>; // [tap, co, ci]

struct Norm8 {
    first: Norm4,
    second: Norm4,
}

fn raw8(at: u32, ci: u32) -> Eight { return x8[(at + ci) / 8u]; }
fn norm8(ci: u32) -> Norm8 {
    let quads = params.in_c / 4u;
    return Norm8(norm4(ci / 4u, quads), norm4(ci / 4u + 1u, quads));
}
fn made8(norm: Norm8, raw: Eight) -> Eight {
    return Eight(
        Element4(normalised4(norm.first, vec4<f32>(raw[0]))), Element4(normalised4(norm.second, vec4<f32>(raw[1]))),
    );
}
