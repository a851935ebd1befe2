// The second stage of weight gradients: adds up the partial sums of all chunks, for many gradients in one launch.
//
//   gradients[to + i] = sum over chunks of tables[source + chunk * width + i],   i = 0 .. count,   for each part
//
// The first stages (conv2d, linear, ...) leave tables [chunks, width]: a row is what one chunk of pixels adds to the
// weights, then to the biases. A part is a range of the columns of one table, and the place of its sums in the tensor
// of all gradients. No atomics: the same bits in every run.
//
//      columns = 1 << shift, four times side by side          An invocation adds up four columns of its part,
//        +---+---+---+---+--   --+---+---+---+---+            `columns` apart. WG / columns lanes share them: each
//        |   |   |   |   |  ..   |   |   |   |   | lane 0     takes the chunks lane, lane + lanes, ..., then the
//        |   |   |   |   |  ..   |   |   |   |   | lane 1     lanes are added up (lib/columns).
//        +---+---+---+---+--   --+---+---+---+---+            Few chunks need one lane, many need several.
//
// A workgroup belongs to one part.
// @include flat
// @include parts
// @include columns

override WG: u32 = 64u;

const PARTS: u32 = 64u;

/// Chunks that a lane adds up before they join its sum: no long chain.
const BLOCK: u32 = 16u;

struct Part {
    first_group: u32, // its workgroups begin here (lib/parts)
    source: u32,      // where its first column stands in the first row of its table
    width: u32,       // of the table
    count: u32,       // columns
    chunks: u32,
    shift: u32,       // log2 of the columns that stand side by side in a workgroup
    to: u32,          // where the sums go
    unused: u32,      // an element of a uniform array is a multiple of 16 bytes
}

@group(0) @binding(0) var<uniform> parts: array<Part, PARTS>;
@group(0) @binding(1) var<storage, read> tables: array<f32>;
@group(0) @binding(2) var<storage, read_write> gradients: array<f32>;

@compute @workgroup_size(WG)
fn sums(
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) lid: u32,
) {
    let group = flat_group(wid, groups);
    let part = parts[part_of(group)];
    let columns = 1u << part.shift;
    let lanes = max(WG >> part.shift, 1u);
    let first = (group - part.first_group) * 4u * columns + (lid & (columns - 1u));
    let column = vec4(first) + vec4(0u, 1u, 2u, 3u) * columns;
    let at = vec4(part.source) + min(column, vec4(part.count - 1u)); // beyond the last column: the last one again

    var sum = vec4(0.0);
    for (var begin = lid >> part.shift; begin < part.chunks; begin += BLOCK * lanes) {
        var block = vec4(0.0);
        let end = min(begin + BLOCK * lanes, part.chunks);
        for (var chunk = begin; chunk < end; chunk += 4u * lanes) {
            var four: array<vec4<f32>, 4>; // chunks, whose reads are under way together
            for (var i = 0u; i < 4u; i++) {
                let row = at + vec4(min(chunk + i * lanes, part.chunks - 1u) * part.width);
                four[i] = vec4(tables[row.x], tables[row.y], tables[row.z], tables[row.w]);
            }
            for (var i = 0u; i < 4u; i++) { block += select(vec4(0.0), four[i], chunk + i * lanes < end); }
        }
        sum += block;
    }
    sum = column_sum(sum, 0u, columns, lid);
    if lid < columns {
        for (var i = 0u; i < 4u; i++) {
            if column[i] < part.count { gradients[part.to + column[i]] = sum[i]; }
        }
    }
}
