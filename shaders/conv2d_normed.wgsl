// The convolution of an x that still has to be normalised, and its weight gradient: the batch norm before it, with or without
// a ReLU, happens where x is read, and nobody writes the normalised tensor.
//
//   forward, forward_statistics, backward_weight    as in conv2d.wgsl, of v = (x - center) * scale + shift, and 0 below floor
//
// Around the image lie zeros, not what a zero would be normalised to. center, scale and shift are the table [4, C] that
// batch_norm.wgsl's finalize leaves.
//
//            x ---> v ---+                 in the loop over (tap, ci): 8 pixels are normalised for 8 pixels x 8 channels,
//                        v                 16 operations beside 64 multiply-adds; written and read again, v would be as
//            y[pixel, co] += v * w         much memory traffic as x and y together.
//
// _v1, _v2, _v3  as in conv2d.wgsl.
// @include flat
// @include element
// @include gemm
// @include epilogue
// @include conv2d_sizes
// @include conv2d_element
// @include conv2d_tile
// @include conv2d_statistics
// @include conv2d_forward
// @include conv2d_eight_normed @half
// @include conv2d_matrix @half
// @include conv2d_weight_matrix @half
// @include conv2d_weights
// @include conv2d_gy_plain
// @include batch_norm_table
// @include batch_norm_table4

override WG: u32 = 64u;

@group(0) @binding(0) var<uniform> params: Params;

// ---- forward ---------------------------------------------------------------------------------------------------

@group(0) @binding(1) var<storage, read> x: array<Element>;
@group(0) @binding(2) var<storage, read> weight: array<f32>;
@group(0) @binding(3) var<storage, read> table: array<f32>;
@group(0) @binding(4) var<storage, read> bias: array<f32>;
@group(0) @binding(5) var<storage, read_write> y: array<Element>;

fn pixel_stride() -> u32 { return params.in_c; }
fn load_a(at: u32, ci: u32) -> f32 {
    return select(normalised(f32(x[at + ci]), ci), 0.0, at == OUTSIDE);
}
fn load_a4(at: u32, ci: u32) -> vec4<f32> {
    let v = vec4<f32>(x4[(select(at, 0u, at == OUTSIDE) + ci) / 4u]);
    return select(normalised4(norm4(ci / 4u, params.in_c / 4u), v), vec4(0.0), at == OUTSIDE);
}

@compute @workgroup_size(WG)
fn forward_v1(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    gather_element(flat_index(gid, groups));
}

// By tiles, and with the statistics of the result: lib/conv2d_forward.
@group(0) @binding(2) var<storage, read> weight4: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> bias4: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> y4: array<Element4>;
@group(0) @binding(6) var<storage, read_write> statistics: array<f32>;

// ---- backward_weight -------------------------------------------------------------------------------------------

@group(0) @binding(2) var<storage, read> gy: array<Element>;
@group(0) @binding(4) var<storage, read_write> partial: array<f32>;

@compute @workgroup_size(WG)
fn backward_weight_v1(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    weight_element(flat_index(gid, groups));
}

@group(0) @binding(1) var<storage, read> x4: array<Element4>;
@group(0) @binding(2) var<storage, read> gy4: array<Element4>;
@group(0) @binding(3) var<storage, read> table4: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> partial4: array<vec4<f32>>;

fn x_quad(pixel: u32, quads: u32, quad: u32) -> vec4<f32> { return vec4<f32>(x4[pixel * quads + quad]); }
fn x_norm(quad: u32, quads: u32) -> Norm4 { return norm4(quad, quads); }
fn x_of(norm: Norm4, v: vec4<f32>) -> vec4<f32> { return normalised4(norm, v); }

@compute @workgroup_size(GROUP)
fn backward_weight_v3(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lid: u32,
) {
    weights(flat_group(wid, groups), lid, params);
}
