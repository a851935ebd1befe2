// Both gradients of a convolution in one launch. Layout NHWC.
//
//   backward_v2   gx, as backward_input of conv2d.wgsl, and the partial sums of gw and gb, as its backward_weight_v3
//
// They share nothing but the gy that both read. In two launches the second waits until the last workgroup of the first is
// done, and a small image fills no GPU with either of them.
//
// The gradients of a transposed convolution are the same two sums with x and gy exchanged and weights that need no turning:
// then `turned` is 0, and both take the same sizes.
// @include flat
// @include element
// @include gemm
// @include conv2d_sizes
// @include conv2d_tile
// @include conv2d_weights
// @include conv2d_both
// @include conv2d_gx
// @include conv2d_gather_plain
// @include conv2d_x_plain
// @include conv2d_gy_plain

override WG: u32 = 64u;

@group(0) @binding(0) var<uniform> params: Params; // of the gather

@group(0) @binding(1) var<storage, read> x: array<Element>; // what the gather reads: gy
@group(0) @binding(1) var<storage, read> gathered4: array<Element4>; // the same
@group(0) @binding(2) var<storage, read> weight4: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> x4: array<Element4>;
@group(0) @binding(4) var<storage, read> gy4: array<Element4>;
@group(0) @binding(5) var<storage, read_write> y4: array<Element4>; // gx
@group(0) @binding(6) var<storage, read_write> partial4: array<vec4<f32>>;
