//! A frame without a terminal, for `--once`.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;

use crate::app::App;
use crate::draw::{self, Look};

/// The lines of one frame, without colours and trailing blanks.
pub(crate) fn frame(app: &App, look: Look) -> String {
    let area = Rect { x: 0, y: 0, width: app.size.0, height: app.size.1 };
    let mut buffer = Buffer::empty(area);
    draw::frame(app, look, area, &mut buffer);
    let line = |y: u16| {
        let line: String = (0..area.width).map(|x| buffer[(x, y)].symbol()).collect();
        line.trim_end().to_owned() + "\n"
    };
    (0..area.height).map(line).collect()
}
