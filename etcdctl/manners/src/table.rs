//! A drawn table, as etcd's tools draw theirs.

use crate::output::line;

/// Box-drawing characters, centred heads, right-aligned cells.
pub fn draw(out: &mut Vec<u8>, head: &[&str], rows: &[Vec<String>]) {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([head[column].chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let rule = |left: char, cross: &str, right: char| {
        let bars: Vec<String> = widths.iter().map(|width| "─".repeat(width + 2)).collect();
        format!("{left}{}{right}", bars.join(cross))
    };
    line!(out, "{}", rule('┌', "┬", '┐'));
    let cells: Vec<String> =
        head.iter().zip(&widths).map(|(cell, &width)| format!(" {cell:^width$} ")).collect();
    line!(out, "│{}│", cells.join("│"));
    line!(out, "{}", rule('├', "┼", '┤'));
    for row in rows {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, &width)| format!(" {cell:>width$} ")).collect();
        line!(out, "│{}│", cells.join("│"));
    }
    line!(out, "{}", rule('└', "┴", '┘'));
}
