//! Requests: any bytes as the message of any call. The response is an answer or an error that names the fields.

use std::{cell::RefCell, sync::Arc};

use bson::{doc, oid::ObjectId};
use tokio::runtime::{Builder, Runtime};

use super::SCHEMA;
use crate::{
    app::{Parts, assemble},
    source::documents::{Collections, Documents},
    transport::{Apis, fuzzing},
};

/// A service over a few documents, and the runtime that it answers on.
struct Service {
    runtime: Runtime,
    apis: Apis,
}

impl Service {
    fn new() -> Option<Self> {
        let id = |number| ObjectId::from_bytes([number; 12]);
        let collections = Collections::from([
            ("users".to_owned(), vec![doc! { "_id": id(1), "active": true }, doc! { "_id": id(2), "active": false }]),
            (
                "files".to_owned(),
                vec![
                    doc! { "_id": id(7), "owner": id(1) },
                    doc! { "_id": id(8), "folder": id(7), "readers": "*" },
                    doc! { "_id": id(9), "owner": 5 },
                ],
            ),
        ]);
        let documents = Arc::new(Documents::new(&SCHEMA, &collections));
        let runtime = Builder::new_current_thread().enable_time().build().ok()?;
        let apis = assemble(Parts::new(Arc::clone(&SCHEMA), documents)).apis;
        Some(Self { runtime, apis })
    }
}

thread_local! {
    static SERVICE: RefCell<Option<Service>> = const { RefCell::new(None) };
}

/// Calls a method, which the first byte chooses, with the other bytes as the message.
pub fn requests(data: &[u8]) {
    let Some((method, message)) = data.split_first() else { return };
    SERVICE.with_borrow_mut(|service| {
        if service.is_none() {
            *service = Service::new();
        }
        if let Some(Service { runtime, apis }) = service {
            runtime.block_on(fuzzing::call(apis, *method, message));
        }
    });
}
