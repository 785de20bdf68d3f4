//! Tables of text separated by commas, tabs or semicolons, plain or packed, with the line of each row as a text editor
//! shows it.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use csv::{ReaderBuilder, StringRecord};

use super::archive::unpack;
use super::problem::{Problem, Problems};
use crate::error::said;

/// More columns than any table of genes has.
const MAX_COLUMNS: usize = 250_000;
/// More bytes than any text of a cohort has. Text is read as a whole; a file with holes may be longer than the memory.
const MAX_TEXT: u64 = 1 << 32;
/// More memory than any table of a cohort takes. A packed table may be a thousand times longer than its file, and a text of
/// commas or line ends takes many times its length.
const MAX_TABLE: usize = 1 << 32;
/// Rows with too many or too few cells that are told of one table.
const MAX_RAGGED: usize = 1000;

/// A table in memory.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) file: PathBuf,
    pub(crate) header: Vec<String>,
    pub(crate) rows: Vec<Row>,
}

/// One row of a table. Its cells are trimmed.
#[derive(Debug)]
pub(crate) struct Row {
    /// The line it starts in, from 1.
    pub(crate) line: usize,
    cells: StringRecord,
}

impl Row {
    /// A cell; blank where the row is shorter than that.
    pub(crate) fn cell(&self, column: usize) -> &str {
        self.cells.get(column).unwrap_or("")
    }
}

/// Reads a text file of the user: a regular file in UTF-8, without its byte order mark, or packed alone in an archive.
pub(crate) fn read_text(file: &Path, problems: &mut Problems) -> Option<String> {
    let bytes = match fs::metadata(file) {
        Ok(data) if !data.is_file() => Err(std::io::Error::other("not a regular file")),
        Ok(data) if data.len() > MAX_TEXT => {
            let said = format!("{} bytes, of a text at most {MAX_TEXT} are read", data.len());
            Err(std::io::Error::other(said))
        }
        Ok(_) => fs::read(file),
        Err(e) => Err(e),
    };
    let bytes = match bytes {
        Ok(bytes) => bytes,
        Err(e) => {
            problems.push(Problem::Unreadable { file: file.into(), why: said(&e) });
            return None;
        }
    };
    let bytes = match unpack(bytes) {
        Ok(bytes) => bytes,
        Err(why) => {
            problems.push(Problem::Archive { file: file.into(), why });
            return None;
        }
    };
    match String::from_utf8(bytes) {
        Ok(text) => Some(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text)),
        Err(e) => {
            let line = 1 + newlines(&e.as_bytes()[..e.utf8_error().valid_up_to()]);
            problems.push(Problem::NotUtf8 { file: file.into(), line });
            None
        }
    }
}

fn newlines(bytes: &[u8]) -> usize {
    bytes.iter().filter(|&&b| b == b'\n').count()
}

/// What separates the cells of a table with this header. Spreadsheets write semicolons where a comma is the decimal point.
fn delimiter(header: &str) -> u8 {
    let [tabs, commas, semicolons] = ['\t', ',', ';'].map(|c| header.matches(c).count());
    if tabs > commas {
        b'\t'
    } else if commas == 0 && semicolons > 0 {
        b';'
    } else {
        b','
    }
}

/// Counts the cells of a table before any is kept: refuses rows that are wider, and tables that are larger, than any should be.
fn measure(text: &str, delimiter: u8) -> Result<(), Oversized> {
    /// The bytes of a row besides its text, and those of a cell.
    const ROW: usize = size_of::<Row>() + 96;
    const CELL: usize = size_of::<usize>();
    let mut reader = csv_core::ReaderBuilder::new().delimiter(delimiter).build();
    let (mut input, mut scratch) = (text.as_bytes(), [0; 4096]);
    let (mut rows, mut cells, mut in_row) = (0usize, 0usize, 0usize);
    loop {
        let (result, read, _) = reader.read_field(input, &mut scratch);
        input = &input[read..];
        match result {
            csv_core::ReadFieldResult::InputEmpty | csv_core::ReadFieldResult::OutputFull => {}
            csv_core::ReadFieldResult::Field { record_end } => {
                (cells, in_row) = (cells + 1, in_row + 1);
                if in_row > MAX_COLUMNS {
                    return Err(Oversized::Row);
                }
                if record_end {
                    (rows, in_row) = (rows + 1, 0);
                }
                if text.len() + rows * ROW + cells * CELL > MAX_TABLE {
                    return Err(Oversized::Table);
                }
            }
            csv_core::ReadFieldResult::End => return Ok(()),
        }
    }
}

/// What is larger than anything sensible.
#[derive(Debug, PartialEq, Eq)]
enum Oversized {
    Row,
    Table,
}

impl Table {
    /// Reads a table whose rows all have as many cells as its header; `ragged` allows them to have fewer.
    pub(crate) fn read(file: &Path, ragged: bool, problems: &mut Problems) -> Option<Table> {
        Table::read_below(file, ragged, None, problems)
    }

    /// Like [`read`](Self::read), but lines before the header that start with `comment` are passed over.
    pub(crate) fn read_below(
        file: &Path,
        ragged: bool,
        comment: Option<char>,
        problems: &mut Problems,
    ) -> Option<Table> {
        let text = read_text(file, problems)?;
        let is_comment = |line: &&str| comment.is_some_and(|c| line.starts_with(c));
        let skipped: usize = text.split_inclusive('\n').take_while(is_comment).map(str::len).sum();
        let above = newlines(&text.as_bytes()[..skipped]);
        let text = &text[skipped..];
        let delimiter = delimiter(text.lines().next().unwrap_or(""));
        if let Err(oversized) = measure(text, delimiter) {
            let file = file.into();
            problems.push(match oversized {
                Oversized::Row => Problem::TooManyColumns { file, limit: MAX_COLUMNS },
                Oversized::Table => Problem::Unreadable {
                    file,
                    why: format!(
                        "as a table it takes more than {MAX_TABLE} bytes of memory; leave out what is not used"
                    ),
                },
            });
            return None;
        }
        let mut reader = ReaderBuilder::new()
            .delimiter(delimiter)
            .has_headers(false)
            .flexible(true)
            .trim(csv::Trim::All)
            .from_reader(text.as_bytes());

        let mut header: Option<Vec<String>> = None;
        let mut rows = Vec::new();
        let (mut line, mut counted, mut ragged_rows) = (1 + above, 0, 0);
        let mut record = StringRecord::new();
        // Neither can fail: the text is in memory, is UTF-8, and may have rows of any length.
        while reader.read_record(&mut record).unwrap_or(false) {
            // A record is said to start where the one before ended; blank lines and the second half of \r\n come first.
            let start = record.position().map_or(0, |p| p.byte() as usize);
            let start = start + text.as_bytes()[start..].iter().take_while(|b| matches!(b, b'\r' | b'\n')).count();
            line += newlines(&text.as_bytes()[counted..start]);
            counted = start;
            let Some(header) = &header else {
                header = Some(record.iter().map(str::to_owned).collect());
                continue;
            };
            let (want, got) = (header.len(), record.len());
            if got > want || (got < want && !ragged) {
                problems.push(Problem::RaggedRow { file: file.into(), line, want, got });
                ragged_rows += 1;
                if ragged_rows == MAX_RAGGED {
                    return None;
                }
            }
            rows.push(Row { line, cells: record.clone() });
        }
        match header {
            Some(header) if !rows.is_empty() => Some(Table { file: file.into(), header, rows }),
            _ => {
                problems.push(Problem::EmptyTable { file: file.into() });
                None
            }
        }
    }

    /// The place of a column that must be there, once.
    pub(crate) fn column(&self, name: &str, problems: &mut Problems) -> Option<usize> {
        let mut places = self.header.iter().enumerate().filter(|(_, h)| *h == name).map(|(i, _)| i);
        let found = places.next();
        if found.is_none() {
            let has = self.header.clone();
            problems.push(Problem::MissingColumn { file: self.file.clone(), column: name.into(), has });
        } else if places.next().is_some() {
            problems.push(Problem::DuplicateColumn { file: self.file.clone(), column: name.into() });
        }
        found
    }
}

/// Reports names that occur twice, with the line of each.
pub(crate) fn refuse_duplicate_genes<'a>(
    file: &Path,
    genes: impl Iterator<Item = (usize, &'a str)>,
    problems: &mut Problems,
) {
    let mut seen = HashSet::new();
    for (line, gene) in genes {
        if !seen.insert(gene) {
            problems.push(Problem::DuplicateGene { file: file.into(), line, gene: gene.into() });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8], ragged: bool) -> (Option<Table>, Problems) {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), bytes).unwrap();
        let mut problems = Problems::default();
        (Table::read(file.path(), ragged, &mut problems), problems)
    }

    #[test]
    fn lines_are_those_of_an_editor_whatever_the_line_ends_and_quotes() {
        for eol in ["\n", "\r\n"] {
            let text = ["\u{feff}a,b", "1,\"x", "y\"", "", "2, z ", "3,w"].join(eol);
            let (table, problems) = read(text.as_bytes(), false);
            let table = table.unwrap();
            assert!(problems.is_empty());
            assert_eq!(table.header, ["a", "b"]);
            assert_eq!(table.rows.iter().map(|r| r.line).collect::<Vec<_>>(), [2, 5, 6]);
            assert_eq!(table.rows[1].cell(1), "z");
        }
    }

    #[test]
    fn tabs_separate_when_the_header_has_no_comma() {
        let (table, _) = read(b"a\tb\n1\t2,5\n", false);
        assert_eq!(table.unwrap().rows[0].cell(1), "2,5");
    }

    #[test]
    fn semicolons_separate_where_there_is_neither_comma_nor_tab() {
        let (table, _) = read(b"a;b\n1;2,5\n", false);
        assert_eq!(table.unwrap().rows[0].cell(1), "2,5");
        assert_eq!(read(b"a\tb, c\td\n1\t2\t3\n", false).0.unwrap().header, ["a", "b, c", "d"]);
        assert_eq!(read(b"a;b,c\n1;2,3\n", false).0.unwrap().header, ["a;b", "c"]);
    }

    #[test]
    fn comments_above_the_header_are_passed_over_where_they_are_expected() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "#Identifier, long\t#x\n#1\nID\tOS\n#P\t1\n").unwrap();
        let mut problems = Problems::default();
        let table = Table::read_below(file.path(), false, Some('#'), &mut problems).unwrap();
        assert!(problems.is_empty());
        assert_eq!(
            (&table.header[..], table.rows[0].line, table.rows[0].cell(0)),
            (&["ID", "OS"].map(String::from)[..], 4, "#P")
        );
    }

    #[test]
    fn a_packed_table_and_a_plain_one_called_zip_are_told_apart_by_content() {
        let packed = crate::data::archive::tests::zip(&[("../x/table.csv.zip", b"a,b\r\n1,2\r\n")], true);
        assert_eq!(read(&packed, false).0.unwrap().rows[0].cell(1), "2");
        assert!(matches!(read(&packed[..packed.len() - 1], false).1.0[..], [Problem::Archive { .. }]));
        let bytes = [b"\xff\xfea\0", &packed[..]].concat();
        assert!(matches!(read(&bytes, false).1.0[..], [Problem::NotUtf8 { line: 1, .. }]));
    }

    #[test]
    fn ragged_rows_are_named_unless_allowed() {
        let (_, problems) = read(b"a,b\n1\n1,2,3\n", false);
        assert!(matches!(
            problems.0[..],
            [Problem::RaggedRow { line: 2, want: 2, got: 1, .. }, Problem::RaggedRow { line: 3, got: 3, .. }]
        ));
        let (table, problems) = read(b"a,b\n1\n", true);
        assert!(problems.is_empty() && table.unwrap().rows[0].cell(1).is_empty());
    }

    #[test]
    fn text_that_is_not_utf8_is_named_with_its_line() {
        let (_, problems) = read(b"a,b\n1,2\n\xff,3\n", false);
        assert!(matches!(problems.0[..], [Problem::NotUtf8 { line: 3, .. }]));
    }

    #[test]
    fn empty_tables_and_absurd_widths_are_refused() {
        assert!(matches!(read(b"", false).1.0[..], [Problem::EmptyTable { .. }]));
        assert!(matches!(read(b"a,b\n", false).1.0[..], [Problem::EmptyTable { .. }]));
        let wide = vec![b','; MAX_COLUMNS];
        assert!(matches!(read(&wide, false).1.0[..], [Problem::TooManyColumns { .. }]));
    }

    #[test]
    fn a_folder_is_not_a_table() {
        let folder = tempfile::tempdir().unwrap();
        let mut problems = Problems::default();
        assert!(Table::read(folder.path(), false, &mut problems).is_none());
        assert!(matches!(problems.0[..], [Problem::Unreadable { .. }]));
    }

    #[test]
    fn a_text_longer_than_memory_is_refused_and_not_read() {
        let file = tempfile::NamedTempFile::new().unwrap();
        // A hole: the disk holds next to nothing of it.
        file.as_file().set_len(1 << 40).unwrap();
        let mut problems = Problems::default();
        assert!(Table::read(file.path(), false, &mut problems).is_none());
        assert!(
            matches!(&problems.0[..], [Problem::Unreadable { why, .. }] if why.contains("1099511627776")),
            "{problems}"
        );
    }

    #[test]
    fn missing_and_double_columns_are_named() {
        let table = read(b"a,b,b\n1,2,3\n", false).0.unwrap();
        let mut problems = Problems::default();
        assert_eq!(table.column("a", &mut problems), Some(0));
        assert!(problems.is_empty());
        table.column("b", &mut problems);
        table.column("c", &mut problems);
        assert!(
            matches!(&problems.0[..], [Problem::DuplicateColumn { .. }, Problem::MissingColumn { has, .. }] if has.len() == 3)
        );
    }
}
