// Both gradients of the convolution of an x that still has to be normalised, in one launch.
//
//   backward_v2   gv = backward_input of conv2d.wgsl, from which the batch norm's gradient goes on; and the partial sums of
//                 gw and gb, as backward_weight_v3 of conv2d_normed.wgsl
//   backward_sums_v2   the same, and the sums that the batch norm's gradient begins with (lib/conv2d_norm_sums)
// @include flat
// @include element
// @include gemm
// @include conv2d_sizes
// @include conv2d_tile
// @include conv2d_weights
// @include conv2d_both
// @include conv2d_gx
// @include conv2d_norm_sums
// @include conv2d_gather_plain
// @include conv2d_gy_plain
// @include batch_norm_table4

override WG: u32 = 64u;

@group(0) @binding(0) var<uniform> params: Params; // of the gather

@group(0) @binding(1) var<storage, read> x: array<Element>; // what the gather reads: gy
@group(0) @binding(1) var<storage, read> gathered4: array<Element4>; // the same
@group(0) @binding(2) var<storage, read> weight4: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> x4: array<Element4>;
@group(0) @binding(4) var<storage, read> gy4: array<Element4>;
@group(0) @binding(5) var<storage, read> table4: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> y4: array<Element4>; // gv
@group(0) @binding(7) var<storage, read_write> partial4: array<vec4<f32>>;
@group(0) @binding(8) var<storage, read_write> norm_sums: array<f32>;

fn x_quad(pixel: u32, quads: u32, quad: u32) -> vec4<f32> { return vec4<f32>(x4[pixel * quads + quad]); }
fn x_norm(quad: u32, quads: u32) -> Norm4 { return norm4(quad, quads); }
fn x_of(norm: Norm4, v: vec4<f32>) -> vec4<f32> { return normalised4(norm, v); }
fn raw_x(at: u32) -> vec4<f32> { return vec4<f32>(x4[at]); }
