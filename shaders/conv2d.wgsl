// 2-D convolution (as in networks: a correlation) and its gradients. Layout NHWC, weights [ky, kx, ci, co].
//
//   forward          y[n,oy,ox,co] = bias[co] + sum over ky,kx,ci of x[n, oy*s+ky-p, ox*s+kx-p, ci] * w[ky,kx,ci,co]
//   forward_statistics   forward, and for the batch norm that follows: mean and sum of (y - mean)^2 per channel and chunk;
//                    a chunk is the pixels of one workgroup
//   backward_input   gx = the same sum over gy with v[ky,kx,co,ci] = w[kh-1-ky,kw-1-kx,ci,co] (transpose_weights.wgsl),
//                    padding k-1-p, and a division by s where forward multiplies: forward's kernels
//   backward_weight  gw[ky,kx,ci,co] = sum over n,oy,ox of x[n, oy*s+ky-p, ox*s+kx-p, ci] * gy[n,oy,ox,co];
//                    gb[co] = sum of gy. Partial sums over chunks of image rows; sum_chunks.wgsl adds the chunks up in
//                    order: no atomics, the same bits in every run.
//
// One gather serves forward and backward_input: a position is (o * multiply + k - pad), and counts only where it
// divides by `divide` and lies inside.
//
// _v1  one invocation computes one element.
// _v2  one invocation computes a tile of 8 pixels x 8 channels (lib/gemm_tile); backward_weight 8 weights x 8 channels.
// _v3  backward_weight for ci that divides by 8: both sides are read as vec4, bounds are checked once per image row.
// With BLOCK above 1 _v2 of forward and _v3 go through workgroup memory, in blocks of 64 tiles (lib/gemm_block, lib/weight_block).
// @include flat
// @include element
// @include gemm
// @include epilogue
// @include conv2d_sizes
// @include conv2d_element
// @include conv2d_tile
// @include conv2d_statistics
// @include conv2d_forward
// @include conv2d_eight_plain @half
// @include conv2d_matrix @half
// @include conv2d_weight_matrix @half
// @include conv2d_weights
// @include conv2d_weight_rows
// @include conv2d_gather_plain
// @include conv2d_x_plain
// @include conv2d_gy_plain

override WG: u32 = 64u;

@group(0) @binding(0) var<uniform> params: Params;

// ---- forward and backward_input -------------------------------------------------------------------------------

@group(0) @binding(1) var<storage, read> x: array<Element>;
@group(0) @binding(2) var<storage, read> weight: array<f32>;
@group(0) @binding(3) var<storage, read> bias: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<Element>;

@compute @workgroup_size(WG)
fn forward_v1(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    gather_element(flat_index(gid, groups));
}

// By tiles, and with the statistics of the result: lib/conv2d_forward.
@group(0) @binding(1) var<storage, read> gathered4: array<Element4>; // x
@group(0) @binding(2) var<storage, read> weight4: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> bias4: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> y4: array<Element4>;
@group(0) @binding(5) var<storage, read_write> statistics: array<f32>; // [mean, sum of (y - mean)^2][co][chunk]

// ---- backward_weight ------------------------------------------------------------------------------------------
// Weights are rows r = (ky, kx, ci) of `out_c` numbers; row r = kernel_h*kernel_w*in_c is the bias, whose "x" is 1.
// `partial` is [chunk, r, co]. `params` are forward's.

@group(0) @binding(2) var<storage, read> gy: array<Element>;
@group(0) @binding(3) var<storage, read_write> partial: array<f32>;

@compute @workgroup_size(WG)
fn backward_weight_v1(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    weight_element(flat_index(gid, groups));
}

@group(0) @binding(2) var<storage, read> gy4: array<Element4>;
@group(0) @binding(3) var<storage, read_write> partial4: array<vec4<f32>>;

@compute @workgroup_size(WG)
fn backward_weight_v2(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    weight_rows_tile(flat_index(gid, groups));
}

fn gy_quad(none: u32, at: u32) -> vec4<f32> { return vec4<f32>(gy4[at]); }

@group(0) @binding(1) var<storage, read> x4: array<Element4>;

@compute @workgroup_size(GROUP)
fn backward_weight_v3(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lid: u32,
) {
    weights(flat_group(wid, groups), lid, params);
}
