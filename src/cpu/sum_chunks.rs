//! The second stage of weight gradients. The twin of `shaders/sum_chunks.wgsl`.

use super::{Real, uniform};

uniform! {
    /// Which columns of which table are added up, and where their sums go.
    Part {
        /// The first workgroup on the GPU.
        first_group: u32,
        /// Place of the first column in the first row of the table.
        source: u32,
        /// Columns of the table.
        width: u32,
        /// Columns.
        count: u32,
        /// Rows of the table.
        chunks: u32,
        /// Log2 of the columns that stand side by side in a workgroup of the GPU.
        shift: u32,
        /// Place of the first sum.
        to: u32,
        /// Fills up the struct.
        unused: u32,
    }
}

/// `sums[to + i]` = sum over chunks of `tables[source + chunk * width + i]`.
pub fn sums<T: Real>(p: &Part, tables: &[T], sums: &mut [T]) {
    let sums = &mut sums[p.to as usize..][..p.count as usize];
    sums.fill(T::zero());
    for row in tables[p.source as usize..].chunks(p.width as usize).take(p.chunks as usize) {
        sums.iter_mut().zip(row).for_each(|(sum, partial)| *sum += *partial);
    }
}
