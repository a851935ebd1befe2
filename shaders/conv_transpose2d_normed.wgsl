// The transposed convolution of an x that still has to be normalised: as conv2d_normed.wgsl does it.
//
// _v2, _v5  as in conv_transpose2d.wgsl, with v = (x - center) * scale + shift, and 0 below floor, in the place of x.
// @include flat
// @include element
// @include gemm
// @include gemm_forward
// @include conv_transpose2d_tile
// @include conv2d_eight_normed @half
// @include conv_transpose2d_matrix @half
// @include batch_norm_table
// @include batch_norm_table4

override WG: u32 = 64u;

@group(0) @binding(0) var<uniform> params: Params;

@group(0) @binding(1) var<storage, read> x: array<Element>;
@group(0) @binding(1) var<storage, read> x4: array<Element4>;
@group(0) @binding(2) var<storage, read> weight4: array<vec4<f32>>; // transposed
@group(0) @binding(3) var<storage, read> table: array<f32>; // [4, C] of batch_norm.wgsl's finalize
@group(0) @binding(3) var<storage, read> table4: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> bias4: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> y4: array<Element4>;

fn load_a(at: u32, ci: u32) -> f32 { return normalised(f32(x[at + ci]), ci); }
fn load_a4(at: u32, ci: u32) -> vec4<f32> {
    return normalised4(norm4(ci / 4u, params.in_c / 4u), vec4<f32>(x4[(at + ci) / 4u]));
}
