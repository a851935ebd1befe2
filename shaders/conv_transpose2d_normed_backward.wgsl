// Both gradients of the transposed convolution of an x that still has to be normalised, in one launch.
//
// They are the sums of conv2d_normed_backward.wgsl with x and gy exchanged: the transposed convolution is the adjoint of a
// convolution, whose gy is this x.
// @include flat
// @include gemm_tile
// @include epilogue
// @include conv2d_sizes
// @include conv2d_tile
// @include conv2d_weight
// @include conv2d_both
// @include batch_norm_table

override WG: u32 = 64u;

@group(0) @binding(0) var<uniform> params: Params; // of the gather

@group(0) @binding(1) var<storage, read> gy: array<f32>; // of the transposed convolution, and again as x4
@group(0) @binding(2) var<storage, read> weight4: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> bias4: array<vec4<f32>>; // gradients have none
@group(0) @binding(4) var<storage, read> x4: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read> gy4: array<vec4<f32>>; // its x
@group(0) @binding(6) var<storage, read> table4: array<vec4<f32>>;
@group(0) @binding(7) var<storage, read_write> y4: array<vec4<f32>>; // its gv
@group(0) @binding(8) var<storage, read_write> partial4: array<vec4<f32>>;

// gy is taken as it is, x is normalised.
fn pixel_stride() -> u32 { return params.in_c; }
fn load_a(at: u32, co: u32) -> f32 { return select(gy[at + co], 0.0, at == OUTSIDE); }
fn x_quad(pixel: u32, quads: u32, quad: u32) -> vec4<f32> { return x4[pixel * quads + quad]; }
fn x_norm(quad: u32) -> u32 { return quad; }
fn x_of(none: u32, v: vec4<f32>) -> vec4<f32> { return v; }
fn gy_norm(quad: u32) -> Norm4 {
    let quads = params.out_c / 4u;
    return Norm4(table4[quad], table4[quads + quad], table4[2u * quads + quad]);
}
fn gy_of(norm: Norm4, v: vec4<f32>) -> vec4<f32> { return normalised4(norm, v); }

@compute @workgroup_size(WG)
fn backward_v2(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    both_gradients(flat_index(gid, groups));
}
