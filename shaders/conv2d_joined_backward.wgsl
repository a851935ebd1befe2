// Both gradients of the convolution of an x that is two tensors side by side, in one launch; that of x goes to two tensors.
//
//   backward_v2   ga and gb = backward_input of conv2d.wgsl, and the partial sums of gw and gb as backward_weight_v3 of
//                 conv2d_joined.wgsl
// @include flat
// @include element
// @include gemm
// @include conv2d_sizes
// @include conv2d_tile
// @include conv2d_weights
// @include conv2d_both
// @include conv2d_gather_plain
// @include conv2d_x_joined
// @include conv2d_gy_plain

override WG: u32 = 64u;

@group(0) @binding(0) var<uniform> params: Params; // of the gather

@group(0) @binding(1) var<storage, read> x: array<Element>; // what the gather reads: gy
@group(0) @binding(1) var<storage, read> gathered4: array<Element4>; // the same
@group(0) @binding(2) var<storage, read> weight4: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> a4: array<Element4>;
@group(0) @binding(4) var<storage, read> b4: array<Element4>;
@group(0) @binding(5) var<storage, read> gy4: array<Element4>;
@group(0) @binding(6) var<storage, read_write> ga4: array<Element4>;
@group(0) @binding(7) var<storage, read_write> gb4: array<Element4>;
@group(0) @binding(8) var<storage, read_write> partial4: array<vec4<f32>>;

fn store(row: u32, col4: u32, value: vec4<f32>) {
    let pixel = pixel_of(row);
    let split = params.split / 4u;
    if col4 < split {
        ga4[pixel * split + col4] = Element4(value);
    } else {
        gb4[pixel * (params.out_c / 4u - split) + col4 - split] = Element4(value);
    }
}
