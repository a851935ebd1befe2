// Layer normalisation over the last axis, and its gradient. x is `rows` rows of `channels` numbers.
//
//   forward         y = (x - mean[r]) * rstd[r] * w[c] + b[c],   statistics[r] = (mean, rstd) of row r
//   backward_input  gx = rstd * (g - mean of g - xhat * mean of (g * xhat)),   g = gy * w,  xhat = (x - mean) * rstd
//   backward_sums   per chunk of rows: sum of gy * xhat and of gy, for each channel; sum_chunks.wgsl adds the chunks up,
//                   which makes gw[c] and gb[c]
//
//   backward        both of them in one pass over x and gy
//
// The variance is the mean of (x - mean)^2 in a second pass over the row, which is still in the cache.
//
// _v1  one invocation computes one row; backward_sums: a chunk of rows of one channel.
// _v2  four channels at a time. `columns` invocations share a row, a workgroup takes WG / columns rows:
//
//        +----+----+----+----+   row 0: invocation (row, column) takes the vectors
//        | v4 | v4 | v4 | v4 |          column, column + columns, ... of its row;
//        +----+----+----+----+   row 1  then the columns are added up.
//        | v4 | v4 | v4 | v4 |
//        +----+----+----+----+   backward: the rows of the table walk down a chunk. Each invocation keeps the sums of its
//                                channels; in the end those of the rows are added up (lib/columns).
// @include flat
// @include element
// @include columns

override WG: u32 = 64u;

struct Params {
    rows: u32,        // of this launch
    channels: u32,
    chunk: u32,       // rows of a chunk
    first_chunk: u32, // of this launch
    columns: u32,     // v2: a power of two up to WG, at least channels / 4 / VECTORS
    accumulate: u32,  // 1 if gx is added to what stands there
    eps: f32,
}

@group(0) @binding(0) var<uniform> params: Params;

@group(0) @binding(1) var<storage, read> x: array<Element>;
@group(0) @binding(2) var<storage, read> weight: array<f32>;
@group(0) @binding(3) var<storage, read> bias: array<f32>;
@group(0) @binding(4) var<storage, read_write> y: array<Element>;
@group(0) @binding(5) var<storage, read_write> statistics_out: array<vec2<f32>>; // mean, rstd of each row

@group(0) @binding(1) var<storage, read> x4: array<Element4>;
@group(0) @binding(2) var<storage, read> weight4: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> bias4: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> y4: array<Element4>;

var<workgroup> tile_row: array<vec2<f32>, 2u * WG>;

/// The sum over the invocations that share a row, left to right. Two sums in a row use slot 0 and slot 1: then nobody
/// overwrites what others still read, and one barrier is enough.
fn row_sum(value: vec2<f32>, slot: u32, lid: u32) -> vec2<f32> {
    let first = slot * WG + lid - lid % params.columns;
    tile_row[slot * WG + lid] = value;
    workgroupBarrier(); // every value is in the tile
    var total = vec2(0.0);
    for (var at = first; at < first + params.columns; at++) { total += tile_row[at]; }
    return total;
}

fn components(v: vec4<f32>) -> f32 {
    return (v.x + v.y) + (v.z + v.w);
}

// ---- forward ---------------------------------------------------------------------------------------------------

@compute @workgroup_size(WG)
fn forward_v1(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let row = flat_index(gid, groups);
    if row >= params.rows { return; }
    let start = row * params.channels;
    // Summed around the first number: the mean of numbers far from 0 is then as exact as f32 can hold it.
    let origin = f32(x[start]);
    var sum = 0.0;
    for (var c = 0u; c < params.channels; c++) { sum += f32(x[start + c]) - origin; }
    let mean = origin + sum / f32(params.channels);
    var squares = 0.0;
    for (var c = 0u; c < params.channels; c++) {
        let off = f32(x[start + c]) - mean;
        squares += off * off;
    }
    let rstd = 1.0 / sqrt(squares / f32(params.channels) + params.eps);
    for (var c = 0u; c < params.channels; c++) {
        y[start + c] = Element((f32(x[start + c]) - mean) * rstd * weight[c] + bias[c]);
    }
    statistics_out[row] = vec2(mean, rstd);
}

@compute @workgroup_size(WG)
fn forward_v2(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lid: u32,
) {
    let quads = params.channels / 4u;
    let column = lid % params.columns;
    let row = flat_group(wid, groups) * (WG / params.columns) + lid / params.columns;
    let end = select(0u, quads, row < params.rows); // idle rows of the last workgroup still reach the barriers
    let start = min(row, params.rows - 1u) * quads;

    let origin = vec4(f32(x4[start].x));
    var sum = vec4(0.0);
    for (var q = column; q < end; q += params.columns) { sum += vec4<f32>(x4[start + q]) - origin; }
    let mean = origin.x + row_sum(vec2(components(sum), 0.0), 0u, lid).x / f32(params.channels);
    var squares = vec4(0.0);
    for (var q = column; q < end; q += params.columns) {
        let off = vec4<f32>(x4[start + q]) - vec4(mean);
        squares += off * off;
    }
    let variance = row_sum(vec2(components(squares), 0.0), 1u, lid).x / f32(params.channels);
    let rstd = 1.0 / sqrt(variance + params.eps);
    for (var q = column; q < end; q += params.columns) {
        y4[start + q] = Element4((vec4<f32>(x4[start + q]) - vec4(mean)) * rstd * weight4[q] + bias4[q]);
    }
    if row < params.rows && column == 0u { statistics_out[row] = vec2(mean, rstd); }
}

// ---- backward --------------------------------------------------------------------------------------------------

@group(0) @binding(2) var<storage, read> gy: array<Element>;
@group(0) @binding(3) var<storage, read> statistics: array<vec2<f32>>;
@group(0) @binding(4) var<storage, read> input_weight: array<f32>;
@group(0) @binding(5) var<storage, read_write> gx: array<Element>;

@compute @workgroup_size(WG)
fn backward_input_v1(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let row = flat_index(gid, groups);
    if row >= params.rows { return; }
    let start = row * params.channels;
    let mean = statistics[row].x;
    let rstd = statistics[row].y;
    var sum = 0.0;
    var product = 0.0;
    for (var c = 0u; c < params.channels; c++) {
        let g = f32(gy[start + c]) * input_weight[c];
        sum += g;
        product += g * (f32(x[start + c]) - mean);
    }
    let mean_g = sum / f32(params.channels);
    let slope = product * rstd * rstd / f32(params.channels); // gx loses slope for each unit of x - mean
    for (var c = 0u; c < params.channels; c++) {
        let g = f32(gy[start + c]) * input_weight[c];
        var result = rstd * (g - mean_g - (f32(x[start + c]) - mean) * slope);
        if params.accumulate == 1u { result += f32(gx[start + c]); }
        gx[start + c] = Element(result);
    }
}

@group(0) @binding(4) var<storage, read_write> partials: array<f32>; // [chunk][gy * xhat, gy][c]

@compute @workgroup_size(WG)
fn backward_sums_v1(@builtin(global_invocation_id) gid: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    let at = flat_index(gid, groups);
    let c = at % params.channels;
    let first = (at / params.channels) * params.chunk;
    if first >= params.rows { return; }
    var product = 0.0;
    var sum = 0.0;
    for (var r = first; r < min(first + params.chunk, params.rows); r++) {
        let g = f32(gy[r * params.channels + c]);
        product += g * (f32(x[r * params.channels + c]) - statistics[r].x) * statistics[r].y;
        sum += g;
    }
    let to = (params.first_chunk + at / params.channels) * 2u * params.channels + c;
    partials[to] = product;
    partials[to + params.channels] = sum;
}

/// Vectors of a row that one invocation takes in `backward_v2`, at most.
const VECTORS: u32 = 8u;

@group(0) @binding(2) var<storage, read> gy4: array<Element4>;
@group(0) @binding(4) var<storage, read> input_weight4: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> gx4: array<Element4>;
@group(0) @binding(6) var<storage, read_write> partials4: array<vec4<f32>>;

@compute @workgroup_size(WG)
fn backward_v2(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lid: u32,
) {
    let quads = params.channels / 4u;
    let column = lid & (params.columns - 1u);
    let lane = lid / params.columns;
    let height = max(WG / params.columns, 1u);
    let chunk = flat_group(wid, groups);
    let first = chunk * params.chunk;
    if first >= params.rows { return; }
    let end = min(first + params.chunk, params.rows);
    var product: array<vec4<f32>, VECTORS>; // sums over rows of gy * xhat, and of gy
    var sum: array<vec4<f32>, VECTORS>;
    for (var top = first; top < end; top += height) {
        let row = min(top + lane, end - 1u);
        let inside = top + lane < end; // idle rows of the last step still reach the barriers
        let start = row * quads;
        let mean = vec4(statistics[row].x);
        let rstd = statistics[row].y;
        var row_g = vec4(0.0);
        var row_product = vec4(0.0);
        for (var k = 0u; k < VECTORS; k++) {
            let q = column + k * params.columns;
            if inside && q < quads {
                let grad = vec4<f32>(gy4[start + q]);
                let g = grad * input_weight4[q];
                let xhat = (vec4<f32>(x4[start + q]) - mean) * rstd;
                product[k] += grad * xhat;
                sum[k] += grad;
                row_g += g;
                row_product += g * xhat;
            }
        }
        let means = row_sum(vec2(components(row_g), components(row_product)), 0u, lid) / f32(params.channels);
        for (var k = 0u; k < VECTORS; k++) {
            let q = column + k * params.columns;
            if inside && q < quads {
                let xhat = (vec4<f32>(x4[start + q]) - mean) * rstd;
                let g = vec4<f32>(gy4[start + q]) * input_weight4[q];
                var result = rstd * (g - vec4(means.x) - xhat * means.y);
                if params.accumulate == 1u { result += vec4<f32>(gx4[start + q]); }
                gx4[start + q] = Element4(result);
            }
        }
        workgroupBarrier(); // everyone has read the sums of these rows before those of the next ones come
    }
    let to = (params.first_chunk + chunk) * 2u * quads;
    for (var k = 0u; k < VECTORS; k++) {
        if k * params.columns < quads {
            let q = column + k * params.columns;
            let all_products = column_sum(product[k], 0u, params.columns, lid);
            let all_sums = column_sum(sum[k], 1u, params.columns, lid);
            if lid < params.columns && q < quads {
                partials4[to + q] = all_products;
                partials4[to + quads + q] = all_sums;
            }
        }
    }
}
