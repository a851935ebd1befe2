// The convolution of an x that is two tensors side by side, channels of a and then channels of b, and its weight gradient.
// Nobody writes the joined tensor.
//
//   forward, forward_statistics, backward_weight    as in conv2d.wgsl, of x[pixel] = (a[pixel], b[pixel])
//
// Both parts have a multiple of 8 channels, so that no tile has channels of both.
//
// _v2, _v3  as in conv2d.wgsl.
// @include flat
// @include element
// @include gemm
// @include epilogue
// @include conv2d_sizes
// @include conv2d_tile
// @include conv2d_statistics
// @include conv2d_forward
// @include conv2d_eight_joined @half
// @include conv2d_matrix @half
// @include conv2d_weight_matrix @half
// @include conv2d_weights
// @include conv2d_x_joined
// @include conv2d_gy_plain

override WG: u32 = 64u;

@group(0) @binding(0) var<uniform> params: Params;

// ---- forward: lib/conv2d_forward -------------------------------------------------------------------------------

@group(0) @binding(1) var<storage, read> a: array<Element>;
@group(0) @binding(2) var<storage, read> b: array<Element>;
@group(0) @binding(3) var<storage, read> weight4: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> bias4: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> y4: array<Element4>;
@group(0) @binding(6) var<storage, read_write> statistics: array<f32>;

/// Channel ci of a joined pixel.
fn joined(pixel: u32, ci: u32) -> f32 {
    if ci < params.split { return f32(a[pixel * params.split + ci]); }
    return f32(b[pixel * (params.in_c - params.split) + ci - params.split]);
}

fn pixel_stride() -> u32 { return 1u; }
fn load_a(pixel: u32, ci: u32) -> f32 { return select(joined(pixel, ci), 0.0, pixel == OUTSIDE); }
fn load_a4(pixel: u32, ci: u32) -> vec4<f32> {
    return select(x_quad(select(pixel, 0u, pixel == OUTSIDE), params.in_c / 4u, ci / 4u), vec4(0.0), pixel == OUTSIDE);
}

// ---- backward_weight -------------------------------------------------------------------------------------------

@group(0) @binding(1) var<storage, read> a4: array<Element4>;
@group(0) @binding(2) var<storage, read> b4: array<Element4>;
@group(0) @binding(3) var<storage, read> gy4: array<Element4>;
@group(0) @binding(4) var<storage, read_write> partial4: array<vec4<f32>>;

@compute @workgroup_size(GROUP)
fn backward_weight_v3(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lid: u32,
) {
    weights(flat_group(wid, groups), lid, params);
}
