//! The second stage of weight gradients. The twin of `shaders/sum_chunks.wgsl`.

use super::{Real, uniform};

uniform! {
    /// Which columns of which table are added up, and where their sums go.
    Part {
        /// The first workgroup on the GPU.
        first_group: u32,
        /// Number of the table.
        source: u32,
        /// Columns of the table.
        width: u32,
        /// The first column.
        first: u32,
        /// Columns.
        count: u32,
        /// Rows of the table.
        chunks: u32,
        /// Invocations that share a column on the GPU.
        lanes: u32,
        /// Place of the first sum.
        to: u32,
    }
}

/// `sums[i]` = sum over chunks of `table[chunk, first + i]`.
pub fn sums<T: Real>(p: &Part, table: &[T], sums: &mut [T]) {
    let (first, count) = (p.first as usize, p.count as usize);
    let sums = &mut sums[p.to as usize..][..count];
    sums.fill(T::zero());
    for row in table.chunks_exact(p.width as usize).take(p.chunks as usize) {
        sums.iter_mut().zip(&row[first..first + count]).for_each(|(sum, partial)| *sum += *partial);
    }
}
