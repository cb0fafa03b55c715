//! Answers that may come later: what a store is handed with each request.

use std::fmt;

use cabinet_host::ServiceError;

/// The one answer to a request. Send it from any thread, at once or later; the room that asked
/// waits, others do not.
///
/// A reply that is dropped unsent answers [`ServiceError::Unavailable`], so a store that forgets
/// a request or panics over it keeps nobody waiting.
///
/// ```
/// use cabinet_rooms::Reply;
///
/// let (sender, receiver) = std::sync::mpsc::channel();
/// let reply = Reply::new(move |answer| sender.send(answer).unwrap());
/// std::thread::spawn(move || reply.send(Ok(7)));
/// assert_eq!(receiver.recv().unwrap(), Ok(7));
/// ```
pub struct Reply<T> {
    then: Option<Then<T>>,
}

type Then<T> = Box<dyn FnOnce(Result<T, ServiceError>) + Send>;

impl<T> Reply<T> {
    /// A reply that calls `then` with the answer, on the thread that sends it. `then` must not
    /// block.
    pub fn new(then: impl FnOnce(Result<T, ServiceError>) + Send + 'static) -> Self {
        Self {
            then: Some(Box::new(then)),
        }
    }

    /// Sends the answer.
    pub fn send(mut self, answer: Result<T, ServiceError>) {
        if let Some(then) = self.then.take() {
            then(answer);
        }
    }
}

impl<T> Drop for Reply<T> {
    fn drop(&mut self) {
        if let Some(then) = self.then.take() {
            then(Err(ServiceError::Unavailable(
                "the store dropped the request".into(),
            )));
        }
    }
}

impl<T> fmt::Debug for Reply<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reply(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn an_answer_arrives_once() {
        let (sender, receiver) = mpsc::channel();
        Reply::new(move |answer| sender.send(answer).unwrap()).send(Ok(1));
        assert_eq!(receiver.iter().collect::<Vec<_>>(), [Ok(1)]);
    }

    #[test]
    fn a_dropped_reply_is_unavailable() {
        let (sender, receiver) = mpsc::channel();
        drop(Reply::<()>::new(move |answer| sender.send(answer).unwrap()));
        assert!(matches!(
            receiver.recv().unwrap(),
            Err(ServiceError::Unavailable(_))
        ));
    }
}
