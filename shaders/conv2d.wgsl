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
// _v4  forward through workgroup memory, for blocks of 64 tiles (lib/gemm_shared).
// @include flat
// @include element
// @include gemm_tile
// @include gemm_shared
// @include epilogue
// @include conv2d_sizes
// @include conv2d_element
// @include conv2d_tile
// @include conv2d_statistics
// @include conv2d_forward
// @include conv2d_weight
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
    let tile = flat_index(gid, groups); // (chunk, row tile, column tile)
    let out_c4 = params.out_c / 4u;
    let col_tiles = out_c4 / 2u;
    let row_tiles = weight_rows() / TILE_R + 1u; // at least one row is left for the bias
    let co4 = (tile % col_tiles) * 2u;
    let r0 = ((tile / col_tiles) % row_tiles) * TILE_R;
    let chunk = tile / (col_tiles * row_tiles);
    let image_rows = params.batch * params.out_h;
    let first = chunk * params.chunk_rows;
    let last = min(first + params.chunk_rows, image_rows);
    if first >= image_rows { return; }

    // Where each weight row looks, relative to (oy, ox): kernel position and channel.
    var ky: array<u32, TILE_R>;
    var kx: array<u32, TILE_R>;
    var ci: array<u32, TILE_R>;
    for (var i = 0u; i < TILE_R; i++) {
        let r = r0 + i;
        ci[i] = r % params.in_c;
        kx[i] = (r / params.in_c) % params.kernel_w;
        ky[i] = r / (params.in_c * params.kernel_w);
    }
    var sum: array<array<vec4<f32>, 2>, TILE_R>;
    for (var block = first; block < last; block += max(params.block_rows, 1u)) {
        // A block's sum is complete before it is added: no long chain.
        var acc: array<array<vec4<f32>, 2>, TILE_R>;
        for (var row = block; row < min(block + params.block_rows, last); row++) {
            let n = row / params.out_h;
            let oy = row % params.out_h;
            for (var ox = 0u; ox < params.out_w; ox++) {
                let g_at = (row * params.out_w + ox) * out_c4 + co4;
                let g0 = vec4<f32>(gy4[g_at]);
                let g1 = vec4<f32>(gy4[g_at + 1u]);
                for (var i = 0u; i < TILE_R; i++) {
                    let iy = source(oy, ky[i], params.pad_h, params.in_h);
                    let ix = source(ox, kx[i], params.pad_w, params.in_w);
                    let at = ((n * params.in_h + u32(iy)) * params.in_w + u32(ix)) * params.in_c + ci[i];
                    let is_bias = r0 + i == weight_rows();
                    let a = select(select(0.0, f32(x[at]), iy >= 0 && ix >= 0), 1.0, is_bias);
                    acc[i][0] += a * g0;
                    acc[i][1] += a * g1;
                }
            }
        }
        for (var i = 0u; i < TILE_R; i++) {
            sum[i][0] += acc[i][0];
            sum[i][1] += acc[i][1];
        }
    }
    for (var i = 0u; i < TILE_R; i++) {
        if r0 + i <= weight_rows() {
            let at = ((params.first_chunk + chunk) * (weight_rows() + 1u) + r0 + i) * out_c4 + co4;
            partial4[at] = sum[i][0];
            partial4[at + 1u] = sum[i][1];
        }
    }
}

@group(0) @binding(1) var<storage, read> x4: array<Element4>;

@compute @workgroup_size(WG)
fn backward_weight_v3(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    weight_tile(flat_index(gid, groups), params);
}
