// Both gradients of a convolution in one launch. Layout NHWC.
//
//   backward_v2   gx, as backward_input of conv2d.wgsl, and the partial sums of gw and gb, as its backward_weight_v3
//
//   invocations:  | tiles of gx: 8 pixels x 8 channels | tiles of gw: 8 weights x 8 channels of a chunk |
//                 0                                    gx_tiles, rounded up to whole workgroups
//
// They share nothing but the gy that both read. In two launches the second waits until the last workgroup of the first is
// done, and a small image fills no GPU with either of them.
//
// The gradients of a transposed convolution are the same two sums with x and gy exchanged and weights that need no turning:
// then `turned` is 0, and both take the same sizes.
// @include flat
// @include gemm_tile
// @include epilogue
// @include conv2d_sizes
// @include conv2d_gather
// @include conv2d_weight

override WG: u32 = 64u;

@group(0) @binding(0) var<uniform> params: Params; // of the gather

@group(0) @binding(1) var<storage, read> x: array<f32>; // what the gather reads: gy
@group(0) @binding(2) var<storage, read> weight4: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> bias4: array<vec4<f32>>; // gradients have none
@group(0) @binding(4) var<storage, read> x4: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read> gy4: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> y4: array<vec4<f32>>; // gx
@group(0) @binding(7) var<storage, read_write> partial4: array<vec4<f32>>;

/// The sizes of the convolution whose weight gradient is wanted.
fn weight_sizes() -> Params {
    var p = params;
    if params.turned == 1u {
        p.in_h = params.out_h;
        p.in_w = params.out_w;
        p.in_c = params.out_c;
        p.out_h = params.in_h;
        p.out_w = params.in_w;
        p.out_c = params.in_c;
        p.multiply = params.divide;
        p.divide = params.multiply;
        p.pad_h = i32(params.kernel_h) - 1 - params.pad_h;
        p.pad_w = i32(params.kernel_w) - 1 - params.pad_w;
    }
    return p;
}

@compute @workgroup_size(WG)
fn backward_v2(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = flat_index(gid, groups);
    let gx_tiles = (gemm_rows() + TILE_M - 1u) / TILE_M * (gemm_cols() / (4u * TILE_N));
    let first = (gx_tiles + WG - 1u) / WG * WG;
    if at < first { gemm_tile(at); } else { weight_tile(at - first, weight_sizes()); }
}
