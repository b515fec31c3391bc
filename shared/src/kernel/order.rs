//! The order of all additions, written down once.

/// `scores` and `products`, over the `Lanes` and operations of the module that
/// expands this. The attributes are those that the operations need.
macro_rules! kernel {
    ($(#[$features:meta])*) => {
        /// The scores of whole rows.
        $(#[$features])*
        pub(crate) fn scores(query: &Query, rows: &[u8], scores: &mut [f32]) {
            match query.element {
                Element::F16 => by_metric(query, rows, scores, |bytes: &[u8; 16]| load_f16(bytes)),
                Element::Bf16 => by_metric(query, rows, scores, |bytes: &[u8; 16]| load_bf16(bytes)),
                Element::F32 => by_metric(query, rows, scores, |bytes: &[u8; 32]| load_f32(bytes)),
                Element::I8 => by_metric(query, rows, scores, |bytes: &[u8; 8]| load_i8(bytes)),
            }
        }

        $(#[$features])*
        fn by_metric<const BYTES: usize>(
            query: &Query,
            rows: &[u8],
            scores: &mut [f32],
            widen: impl Fn(&[u8; BYTES]) -> Lanes,
        ) {
            match query.metric {
                Metric::Cosine => {
                    let step = |x, y, [dot, square]: [Lanes; 2]| [fma(x, y, dot), fma(x, x, square)];
                    let finish = |[dot, square]: [f32; 2]| cosine(dot, square.sqrt(), query.length);
                    each_row(query, rows, scores, widen, step, finish);
                }
                Metric::Dot => {
                    let step = |x, y, [dot]: [Lanes; 1]| [fma(x, y, dot)];
                    each_row(query, rows, scores, widen, step, |[dot]| dot);
                }
                Metric::L2 => {
                    let step = |x, y, [square]: [Lanes; 1]| [fma(sub(x, y), sub(x, y), square)];
                    each_row(query, rows, scores, widen, step, |[square]| square);
                }
            }
        }

        $(#[$features])*
        fn each_row<const BYTES: usize, const SUMS: usize>(
            query: &Query,
            rows: &[u8],
            scores: &mut [f32],
            widen: impl Fn(&[u8; BYTES]) -> Lanes,
            step: impl Fn(Lanes, Lanes, [Lanes; SUMS]) -> [Lanes; SUMS],
            finish: impl Fn([f32; SUMS]) -> f32,
        ) {
            for (row, score) in rows.chunks_exact(query.row_bytes).zip(scores) {
                let mut sums = [[zero(); SUMS]; REGISTERS];
                let mut take = |row: &[[u8; BYTES]; REGISTERS], query: &[Chunk; REGISTERS]| {
                    for i in 0..REGISTERS {
                        sums[i] = step(widen(&row[i]), load(&query[i]), sums[i]);
                    }
                };
                let groups = row.as_chunks().0.as_chunks().0;
                for (row, query) in groups.iter().zip(&query.groups) {
                    take(row, query);
                }
                if let Some(query) = query.groups.get(groups.len()) {
                    take(&filled_up(&row[size_of_val(groups)..]), query);
                }
                let [a, b, c, d] = sums;
                let mut totals = [0.0; SUMS];
                for sum in 0..SUMS {
                    totals[sum] = total(four(a[sum], b[sum], c[sum], d[sum]));
                }
                *score = finish(totals);
            }
        }

        /// The scores of each row with each vector of a block: those of the first row, of the second, ...
        $(#[$features])*
        pub(crate) fn products(
            block: &Block,
            rows: &[&[u8]],
            coming: &[&[u8]],
            tile: &mut Tile,
            scores: &mut [f32],
        ) {
            for (at, row) in rows.iter().enumerate() {
                match block.element {
                    Element::F16 => fill(tile, at, row, |bytes: &[u8; 16]| load_f16(bytes)),
                    Element::Bf16 => fill(tile, at, row, |bytes: &[u8; 16]| load_bf16(bytes)),
                    Element::F32 => fill(tile, at, row, |bytes: &[u8; 32]| load_f32(bytes)),
                    Element::I8 => fill(tile, at, row, |bytes: &[u8; 8]| load_i8(bytes)),
                }
                if block.scaled || block.metric == Metric::Cosine {
                    tile.lengths[at] = length(tile, at);
                }
                if block.scaled && tile.lengths[at] != 0.0 {
                    scale(tile, at, tile.lengths[at]);
                    tile.lengths[at] = length(tile, at);
                }
            }
            match block.metric {
                Metric::L2 => pairs(block, rows.len(), coming, tile, scores, |x, y, square| {
                    fma(sub(x, y), sub(x, y), square)
                }),
                Metric::Cosine | Metric::Dot => {
                    pairs(block, rows.len(), coming, tile, scores, |x, y, dot| fma(x, y, dot))
                }
            }
            if block.metric == Metric::Cosine {
                for (scores, &row) in scores.chunks_exact_mut(block.lengths.len()).zip(&tile.lengths) {
                    for (score, &query) in scores.iter_mut().zip(&block.lengths) {
                        *score = cosine(*score, row, query);
                    }
                }
            }
        }

        /// Puts a row into a tile, as f32.
        $(#[$features])*
        fn fill<const BYTES: usize>(
            tile: &mut Tile,
            at: usize,
            row: &[u8],
            widen: impl Fn(&[u8; BYTES]) -> Lanes,
        ) {
            let (registers, lane) = tile.row_mut(at);
            let mut put = |g: usize, group: &[[u8; BYTES]; REGISTERS]| {
                for i in 0..REGISTERS {
                    registers[i][g][lane] = store(widen(&group[i]));
                }
            };
            let groups = row.as_chunks().0.as_chunks().0;
            for (g, group) in groups.iter().enumerate() {
                put(g, group);
            }
            let rest = &row[size_of_val(groups)..];
            if !rest.is_empty() {
                put(groups.len(), &filled_up(rest));
            }
        }

        /// The length of a row in a tile.
        $(#[$features])*
        fn length(tile: &mut Tile, at: usize) -> f32 {
            let (registers, lane) = tile.row_mut(at);
            let mut sums = [zero(); REGISTERS];
            for (sum, register) in sums.iter_mut().zip(registers) {
                for chunks in register {
                    let x = load(&chunks[lane]);
                    *sum = fma(x, x, *sum);
                }
            }
            let [a, b, c, d] = sums;
            total(four(a, b, c, d)).sqrt()
        }

        /// Divides a row in a tile by its length.
        $(#[$features])*
        fn scale(tile: &mut Tile, at: usize, length: f32) {
            let (registers, lane) = tile.row_mut(at);
            for register in registers {
                for chunks in register {
                    chunks[lane] = store(div(load(&chunks[lane]), length));
                }
            }
        }

        /// The sums of all pairs of a row of a tile and a vector. On the way, what comes next is brought nearer.
        $(#[$features])*
        fn pairs(
            block: &Block,
            rows: usize,
            coming: &[&[u8]],
            tile: &mut Tile,
            scores: &mut [f32],
            step: impl Fn(Lanes, Lanes, Lanes) -> Lanes,
        ) {
            let (groups, width) = (block.groups, block.lengths.len());
            let Tile { chunks, sums, .. } = tile;
            let fours = block.chunks.chunks_exact(REGISTERS * groups);
            let parts = fours.len();
            for (at, vectors) in fours.enumerate() {
                for row in coming {
                    sys::bring_near(&row[row.len() * at / parts..row.len() * (at + 1) / parts]);
                }
                let threes = chunks.chunks_exact(REGISTERS * groups).take(rows.div_ceil(ROWS));
                for (three, rows) in threes.enumerate() {
                    let registers = rows.chunks_exact(groups).zip(vectors.chunks_exact(groups));
                    for (sums, (rows, vectors)) in sums.iter_mut().zip(registers) {
                        register(rows, vectors, sums, &step);
                    }
                    let [a, b, c, d] = &**sums;
                    for row in 0..ROWS {
                        let from = (three * ROWS + row) * width + at * VECTORS;
                        let Some(scores) = scores.get_mut(from..from + VECTORS) else { break };
                        let mut lanes = [zero(); VECTORS];
                        for v in 0..VECTORS {
                            let sums = [a, b, c, d].map(|sums| &sums[row][v]);
                            lanes[v] = four(load(sums[0]), load(sums[1]), load(sums[2]), load(sums[3]));
                        }
                        scores.copy_from_slice(&totals(lanes));
                    }
                }
            }
        }

        /// The part of the sums that lies in one of the four registers.
        $(#[$features])*
        fn register(
            rows: &[[Chunk; ROWS]],
            vectors: &[[Chunk; VECTORS]],
            into: &mut [[Chunk; VECTORS]; ROWS],
            step: &impl Fn(Lanes, Lanes, Lanes) -> Lanes,
        ) {
            let mut sums = [[zero(); VECTORS]; ROWS];
            for (rows, vectors) in rows.iter().zip(vectors) {
                let x = [load(&rows[0]), load(&rows[1]), load(&rows[2])];
                for v in 0..VECTORS {
                    let y = load(&vectors[v]);
                    for r in 0..ROWS {
                        sums[r][v] = step(x[r], y, sums[r][v]);
                    }
                }
            }
            for r in 0..ROWS {
                for v in 0..VECTORS {
                    into[r][v] = store(sums[r][v]);
                }
            }
        }

        /// Four registers onto one.
        $(#[$features])*
        fn four(a: Lanes, b: Lanes, c: Lanes, d: Lanes) -> Lanes {
            add(add(a, c), add(b, d))
        }
    };
}

pub(super) use kernel;

/// The end of a row, as a group.
pub(super) fn filled_up<const BYTES: usize>(rest: &[u8]) -> [[u8; BYTES]; super::REGISTERS] {
    let mut last = [[0; BYTES]; super::REGISTERS];
    last.as_flattened_mut()[..rest.len()].copy_from_slice(rest);
    last
}
