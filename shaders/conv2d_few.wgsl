// The 3x3 convolution with stride 1 of an x of one to four channels, as the first layer of a network has it, and its weight
// gradient. Layout NHWC, weights [ky, kx, ci, co].
//
//   forward             y[n,oy,ox,co] = bias[co] + sum over ky,kx,ci of x[n, oy+ky-p, ox+kx-p, ci] * w[ky,kx,ci,co]
//   forward_statistics  forward, and for the batch norm that follows: mean and sum of (y - mean)^2 per channel and chunk; a
//                       chunk is a run
//   backward_weight     gw[ky,kx,ci,co] = sum over n,oy,ox of x[n, oy+ky-p, ox+kx-p, ci] * gy[n,oy,ox,co];
//                       gb[co] = sum of gy. Partial sums over chunks of image rows, which sum_chunks.wgsl adds up
//
// One invocation computes a run of pixels of one image row, for 4 * TILE_N channels. It keeps their weights, all 9 * IN_C of
// each, and the part of x under the kernel; step by step this window moves one column to the right:
//
//            kx: 0    1    2
//              +----+----+----+
//         ky 0 | <- | <- | x  |          a step reads one new column, 3 * IN_C numbers of x, moves the two others, and makes
//            1 | <- | <- | x  |  --->    one pixel of y. In tiles (lib/gemm_tile) each tap has a loop over ci to itself, too
//            2 | <- | <- | x  |          short to be worth the search for the tap's place in x.
//              +----+----+----+
//
// backward_weight walks along whole rows in the same way; what an invocation keeps are the sums of its weights.
// Neighbouring invocations take neighbouring channels: the same x, and y side by side.
// backward_input is the same over gy with turned weights (transpose_weights.wgsl), where gy has few channels.
// @include flat
// @include element
// @include conv2d_sizes

override WG: u32 = 64u;

const IN_C: u32 = 3u; // @tune 1 2 3 4
const TILE_N: u32 = 2u; // @tune 1 2

/// Pixels of a run, fewer at the end of a row.
const RUN: u32 = 64u;

@group(0) @binding(0) var<uniform> params: Params;

// ---- forward and backward_input -------------------------------------------------------------------------------

@group(0) @binding(1) var<storage, read> x: array<Element>;
@group(0) @binding(2) var<storage, read> weight4: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> bias4: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> y4: array<Element4>;
@group(0) @binding(5) var<storage, read_write> statistics: array<f32>; // [mean, sum of (y - mean)^2][co][run]

struct Run {
    co4: u32,   // the first vector of its channels
    index: u32, // (n, oy, run of the row)
    row: u32,   // (n, oy)
    ox: u32,    // its first pixel
}

fn run_of(at: u32) -> Run {
    let col_tiles = params.out_c / (4u * TILE_N);
    let index = at / col_tiles;
    return Run((at % col_tiles) * TILE_N, index, index / row_runs(), index % row_runs() * RUN);
}

fn row_runs() -> u32 { return (params.out_w + RUN - 1u) / RUN; }
fn image_rows() -> u32 { return params.batch * params.out_h; }

/// Column ix of x under the kernel, (ky, ci): `top` is the first of its rows. 0 outside of the image.
fn column(n: u32, top: i32, ix: i32) -> array<f32, 3u * IN_C> {
    var numbers: array<f32, 3u * IN_C>;
    for (var ky = 0u; ky < 3u; ky++) {
        let iy = top + i32(ky);
        let inside = iy >= 0 && iy < i32(params.in_h) && ix >= 0 && ix < i32(params.in_w);
        let at = ((n * params.in_h + u32(iy)) * params.in_w + u32(ix)) * IN_C;
        for (var ci = 0u; ci < IN_C; ci++) { numbers[ky * IN_C + ci] = select(0.0, f32(x[at + ci]), inside); }
    }
    return numbers;
}

/// Sums over a run, of y less its first number: as exact as f32 can hold a mean far from 0.
struct Sums {
    origin: array<vec4<f32>, TILE_N>,
    sum: array<vec4<f32>, TILE_N>,
    squares: array<vec4<f32>, TILE_N>,
}

fn convolve(run: Run) -> Sums {
    var sums: Sums;
    if run.row >= image_rows() { return sums; }
    let out_c4 = params.out_c / 4u;
    var weights: array<array<vec4<f32>, TILE_N>, 9u * IN_C>; // (ky, kx, ci)
    for (var k = 0u; k < 9u * IN_C; k++) {
        for (var j = 0u; j < TILE_N; j++) { weights[k][j] = weight4[k * out_c4 + run.co4 + j]; }
    }
    var bias: array<vec4<f32>, TILE_N>;
    if params.has_bias == 1u {
        for (var j = 0u; j < TILE_N; j++) { bias[j] = bias4[run.co4 + j]; }
    }
    let n = run.row / params.out_h;
    let top = i32(run.row % params.out_h) - params.pad_h;
    let left = i32(run.ox) - params.pad_w;
    let pixels = min(RUN, params.out_w - run.ox);
    let y_at = (run.row * params.out_w + run.ox) * out_c4 + run.co4;

    var window: array<array<f32, 3u * IN_C>, 3>; // [kx][(ky, ci)]
    for (var step = 0u; step < pixels + 2u; step++) {
        window[0] = window[1];
        window[1] = window[2];
        window[2] = column(n, top, left + i32(step));
        if step < 2u { continue; } // the window is not full yet

        var acc = bias;
        for (var ky = 0u; ky < 3u; ky++) {
            for (var kx = 0u; kx < 3u; kx++) {
                for (var ci = 0u; ci < IN_C; ci++) {
                    let a = window[kx][ky * IN_C + ci];
                    for (var j = 0u; j < TILE_N; j++) { acc[j] += a * weights[(ky * 3u + kx) * IN_C + ci][j]; }
                }
            }
        }
        for (var j = 0u; j < TILE_N; j++) {
            let to = y_at + (step - 2u) * out_c4 + j;
            if params.accumulate == 1u { acc[j] += vec4<f32>(y4[to]); }
            let stored = Element4(acc[j]);
            y4[to] = stored;
            if step == 2u { sums.origin[j] = vec4<f32>(stored); }
            let off = vec4<f32>(stored) - sums.origin[j];
            sums.sum[j] += off;
            sums.squares[j] += off * off;
        }
    }
    return sums;
}

@compute @workgroup_size(WG)
fn forward_v6(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    _ = convolve(run_of(flat_index(gid, groups)));
}

/// Of rows that are whole runs of f32.
@compute @workgroup_size(WG)
fn forward_statistics_v6(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let run = run_of(flat_index(gid, groups));
    let sums = convolve(run);
    if run.row >= image_rows() { return; }
    for (var j = 0u; j < TILE_N; j++) {
        let mean_off = sums.sum[j] / f32(RUN);
        // What is subtracted is at most RUN times what is left, since the origin is one of the numbers.
        let squares = sums.squares[j] - sums.sum[j] * mean_off;
        for (var i = 0u; i < 4u; i++) {
            let to = ((run.co4 + j) * 4u + i) * params.sums_chunks + params.sums_first + run.index;
            statistics[to] = sums.origin[j][i] + mean_off[i];
            statistics[to + params.out_c * params.sums_chunks] = squares[i];
        }
    }
}

// ---- backward_weight ------------------------------------------------------------------------------------------
// `partial` is [chunk, (ky, kx, ci) and then the bias, co].

@group(0) @binding(2) var<storage, read> gy4: array<Element4>;
@group(0) @binding(3) var<storage, read_write> partial4: array<vec4<f32>>;

@compute @workgroup_size(WG)
fn backward_weight_v4(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let tile = flat_index(gid, groups); // (chunk, channels)
    let out_c4 = params.out_c / 4u;
    let co4 = (tile % (out_c4 / TILE_N)) * TILE_N;
    let chunk = tile / (out_c4 / TILE_N);
    let first = chunk * params.chunk_rows;
    let last = min(first + params.chunk_rows, image_rows());
    if first >= image_rows() { return; }
    let at_sum = (params.first_chunk + chunk) * (9u * IN_C + 1u) * out_c4 + co4;
    for (var block = first; block < last; block += max(params.block_rows, 1u)) {
        // A block's sum is complete before it is added: no long chain.
        var acc: array<array<vec4<f32>, TILE_N>, 9u * IN_C>;
        var bias: array<vec4<f32>, TILE_N>;
        for (var row = block; row < min(block + params.block_rows, last); row++) {
            let n = row / params.out_h;
            let top = i32(row % params.out_h) - params.pad_h;
            var window: array<array<f32, 3u * IN_C>, 3>; // [kx][(ky, ci)]
            for (var step = 0u; step < params.out_w + 2u; step++) {
                window[0] = window[1];
                window[1] = window[2];
                window[2] = column(n, top, i32(step) - params.pad_w);
                if step < 2u { continue; } // the window is not full yet
                for (var j = 0u; j < TILE_N; j++) {
                    let g = vec4<f32>(gy4[(row * params.out_w + step - 2u) * out_c4 + co4 + j]);
                    bias[j] += g;
                    for (var ky = 0u; ky < 3u; ky++) {
                        for (var kx = 0u; kx < 3u; kx++) {
                            for (var ci = 0u; ci < IN_C; ci++) {
                                acc[(ky * 3u + kx) * IN_C + ci][j] += window[kx][ky * IN_C + ci] * g;
                            }
                        }
                    }
                }
            }
        }
        for (var j = 0u; j < TILE_N; j++) {
            // Two short loops: a driver that does not unroll one of 36 turns keeps the sums in memory (seen with AMD's).
            for (var tap = 0u; tap < 9u; tap++) {
                for (var ci = 0u; ci < IN_C; ci++) {
                    let k = tap * IN_C + ci;
                    add_block(at_sum + k * out_c4 + j, acc[k][j], block == first);
                }
            }
            add_block(at_sum + 9u * IN_C * out_c4 + j, bias[j], block == first);
        }
    }
}

/// The first block of a chunk is what stands there, the others are added. Nobody else touches these numbers.
fn add_block(at: u32, sum: vec4<f32>, is_first: bool) {
    if is_first { partial4[at] = sum; } else { partial4[at] += sum; }
}
