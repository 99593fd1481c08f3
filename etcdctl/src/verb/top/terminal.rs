//! The terminal while it shows a screen of its own: every way out gives it back as it was.

use std::io::{self, Stdout, Write as _};

use crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use crossterm::style::{Attribute, Print, SetAttribute};
use crossterm::{cursor, queue, terminal};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::screen::Line;

/// Keys that may wait. When full, the thread that reads them waits.
const KEYS_MAX: usize = 16;

/// What was typed, or what became of the terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// `q`, Escape or Ctrl-C.
    End,
    /// The terminal has another size.
    Resized,
    /// Anything else.
    Other,
}

/// A terminal that shows a screen.
pub struct Terminal {
    out: Stdout,
    keys: mpsc::Receiver<Key>,
}

impl Terminal {
    /// Takes the terminal.
    ///
    /// # Errors
    /// When it cannot be made to show a screen.
    pub fn enter() -> io::Result<Self> {
        terminal::enable_raw_mode()?;
        // A panic may end the process without unwinding: its message has to be readable all the same.
        let hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            leave(&mut io::stdout());
            hook(panic);
        }));
        let (sender, keys) = mpsc::channel(KEYS_MAX);
        let mut this = Self { out: io::stdout(), keys };
        queue!(
            this.out,
            terminal::EnterAlternateScreen,
            cursor::Hide,
            terminal::Clear(terminal::ClearType::All)
        )?;
        this.out.flush()?;
        // It ends with the process, or when nobody wants its keys.
        std::thread::Builder::new().name("keys".to_owned()).spawn(move || {
            while let Ok(event) = event::read() {
                if sender.blocking_send(key_of(&event)).is_err() {
                    return;
                }
            }
        })?;
        Ok(this)
    }

    /// Columns and lines.
    ///
    /// # Errors
    /// When the terminal does not say.
    pub fn size() -> io::Result<(usize, usize)> {
        terminal::size().map(|(columns, lines)| (columns.into(), lines.into()))
    }

    /// The next key; `None` once nothing can be typed any more.
    pub async fn key(&mut self) -> Option<Key> {
        self.keys.recv().await
    }

    /// Shows these lines in place of those that are there.
    ///
    /// # Errors
    /// When the terminal is gone.
    pub fn show(&mut self, lines: &[Line]) -> io::Result<()> {
        queue!(self.out, terminal::BeginSynchronizedUpdate)?;
        for (row, line) in (0..).zip(lines) {
            let attribute = if line.bold { Attribute::Bold } else { Attribute::Reset };
            queue!(self.out, cursor::MoveTo(0, row), SetAttribute(attribute), Print(&line.text))?;
            queue!(
                self.out,
                SetAttribute(Attribute::Reset),
                terminal::Clear(terminal::ClearType::UntilNewLine)
            )?;
        }
        queue!(
            self.out,
            terminal::Clear(terminal::ClearType::FromCursorDown),
            terminal::EndSynchronizedUpdate
        )?;
        self.out.flush()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        leave(&mut self.out);
    }
}

/// Gives the terminal back. Where that fails it is gone, and nobody is left to tell.
fn leave(out: &mut Stdout) {
    queue!(out, SetAttribute(Attribute::Reset), cursor::Show, terminal::LeaveAlternateScreen).ok();
    out.flush().ok();
    terminal::disable_raw_mode().ok();
}

fn key_of(event: &Event) -> Key {
    match event {
        Event::Resize(..) => Key::Resized,
        Event::Key(key) if key.kind != KeyEventKind::Release => match key.code {
            KeyCode::Char('q' | 'Q') | KeyCode::Esc => Key::End,
            // The terminal no longer makes a signal of it.
            KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => Key::End,
            _ => Key::Other,
        },
        _ => Key::Other,
    }
}

/// Waits for a signal to end.
pub async fn ended() {
    let signals = [SignalKind::terminate(), SignalKind::interrupt(), SignalKind::hangup()].map(signal);
    let [Ok(mut terminate), Ok(mut interrupt), Ok(mut hangup)] = signals else {
        // Without signals there are still keys.
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        _ = hangup.recv() => {}
    }
}

#[cfg(test)]
mod tests {
    use crossterm::event::KeyEvent;

    use super::*;

    #[test]
    fn keys_that_end_it() {
        let typed = |code, modifiers| key_of(&Event::Key(KeyEvent::new(code, modifiers)));
        assert_eq!(typed(KeyCode::Char('q'), KeyModifiers::NONE), Key::End);
        assert_eq!(typed(KeyCode::Char('c'), KeyModifiers::CONTROL), Key::End);
        assert_eq!(typed(KeyCode::Char('c'), KeyModifiers::NONE), Key::Other);
        assert_eq!(key_of(&Event::Resize(1, 2)), Key::Resized);
    }
}
