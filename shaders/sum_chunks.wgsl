// The second stage of weight gradients: adds up the partial sums of all chunks, for several gradients in one launch.
//
//   gradients[to + i] = sum over chunks of partial[chunk, first + i],   i = 0 .. count,   for each part
//
// The first stages (conv2d, linear, ...) leave tables [chunks, width]: a row is what one chunk of pixels adds to the
// weights, then to the biases. A part is a range of the columns of one table, and the place of its sums in the tensor
// of all gradients. No atomics: the same bits in every run.
//
//          columns = WG / lanes             `lanes` invocations share a column: invocation (lane, column) adds the
//        +---+---+---+---+---+---+          chunks lane, lane + lanes, ..., then the lanes are added up in order.
//        |   |   |   |   |   |   | lane 0   Few chunks need one lane, many need several to be read in parallel.
//        |   |   |   |   |   |   | lane 1
//        +---+---+---+---+---+---+          A workgroup belongs to one part.
// @include flat
// @include parts

override WG: u32 = 64u;

const PARTS: u32 = 12u;

/// Chunks that a lane adds up before they join its sum: no long chain.
const BLOCK: u32 = 16u;

struct Part {
    first_group: u32, // its workgroups begin here (lib/parts)
    source: u32,      // which table
    width: u32,       // of the table
    first: u32,       // column of the table
    count: u32,       // columns
    chunks: u32,
    lanes: u32,       // a power of two up to WG
    to: u32,          // where the sums go
}

@group(0) @binding(0) var<uniform> parts: array<Part, PARTS>;
@group(0) @binding(1) var<storage, read> table_0: array<f32>;
@group(0) @binding(2) var<storage, read> table_1: array<f32>;
@group(0) @binding(3) var<storage, read> table_2: array<f32>;
@group(0) @binding(4) var<storage, read> table_3: array<f32>;
@group(0) @binding(5) var<storage, read> table_4: array<f32>;
@group(0) @binding(6) var<storage, read> table_5: array<f32>;
@group(0) @binding(7) var<storage, read_write> gradients: array<f32>;

fn partial(source: u32, at: u32) -> f32 {
    switch source {
        case 0u: { return table_0[at]; }
        case 1u: { return table_1[at]; }
        case 2u: { return table_2[at]; }
        case 3u: { return table_3[at]; }
        case 4u: { return table_4[at]; }
        default: { return table_5[at]; }
    }
}

var<workgroup> tile_lanes: array<f32, WG>;

@compute @workgroup_size(WG)
fn sums(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lid: u32,
) {
    let group = flat_group(wid, groups);
    let part = parts[part_of(group)];
    let columns = max(WG / max(part.lanes, 1u), 1u);
    let column = (group - part.first_group) * columns + lid % columns;
    let inside = column < part.count;
    let end = select(0u, part.chunks, inside); // idle columns of the last workgroup still reach the barrier

    var sum = 0.0;
    for (var first = lid / columns; first < end; first += BLOCK * max(part.lanes, 1u)) {
        var block = 0.0;
        for (var chunk = first; chunk < min(first + BLOCK * part.lanes, end); chunk += max(part.lanes, 1u)) {
            block += partial(part.source, chunk * part.width + part.first + column);
        }
        sum += block;
    }
    tile_lanes[lid] = sum;
    workgroupBarrier(); // the sum of every lane is in the tile
    if inside && lid < columns {
        var total = 0.0;
        for (var at = lid; at < WG; at += columns) { total += tile_lanes[at]; }
        gradients[part.to + column] = total;
    }
}
