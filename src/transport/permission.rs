//! The handlers of `PermissionService`: each reads the request, asks the checker and writes the response.
//!
//! Decides no permission, and authenticates no caller (`callers` does).

use std::sync::Arc;

use axum::body::Bytes;
use prost::Message as _;
use tokio::sync::Semaphore;
use tonic::Status;
use tonic_types::pb;

use super::{
    admitted::{Admitted, valid},
    answers::Answers,
    call_context::CallContext,
    convert, explanation,
    lists::ListApi,
    message,
    proto::{
        self, CheckRequest, CheckResponse, ExplainRequest, ExplainResponse, ListPermissionsRequest,
        ListPermissionsResponse, PermissionAnswer,
    },
    question_fields::{BatchFields, CheckFields, QuestionFields},
    record::Record,
    status::{self, Violation},
};
use crate::{
    check::{CheckError, Checked, Checker, Dependencies, Slice},
    list::Lister,
    question::Question,
    schema::Schema,
    telemetry::Metrics,
};

/// The most questions in one batch.
const BATCH_MAX: usize = 10_000;

/// The most bytes of errors with details in one batch response. Nobody reads thousands of them.
const ERROR_BYTES_MAX: usize = 256 * 1_024;

/// The service, as the port and, in process, the command line call it.
#[derive(Clone)]
pub struct PermissionApi {
    schema: Arc<Schema>,
    /// The domain of the dependencies of answers. If it is 0, no answer may be kept.
    domain: u64,
    checker: Checker,
    permits: Arc<Semaphore>,
    record: Record,
}

impl PermissionApi {
    /// A service that takes one of `permits` for each request, and refuses a request if none is free. Its answers have no dependencies.
    #[must_use]
    pub fn new(schema: Arc<Schema>, checker: Checker, metrics: &Arc<Metrics>, permits: Arc<Semaphore>) -> Self {
        let record = Record::new(Arc::clone(&schema), metrics);
        Self { domain: 0, schema, checker, permits, record }
    }

    /// The same service, whose answers have dependencies of this domain; none if it is 0.
    #[must_use]
    pub fn in_domain(self, domain: u64) -> Self {
        Self { domain, ..self }
    }

    /// The same service, logging a random share of answers: none at 0, all at 1.
    #[must_use]
    pub fn logging_decisions(self, share: f64) -> Self {
        Self { record: self.record.logging(share), ..self }
    }

    /// The lists of the same service, which share its permits.
    #[must_use]
    pub fn lists(&self, lister: Lister) -> ListApi {
        ListApi::new(lister, Arc::clone(&self.permits), self.record.clone())
    }

    fn admit(
        &self,
        context: &CallContext,
        consistency: Option<&proto::Consistency>,
        violations: &mut Vec<Violation>,
    ) -> Result<Admitted<'_>, Status> {
        Admitted::read(&self.permits, self.checker.clock, context, consistency, violations)
    }

    /// Reads the questions of a batch. Returns the valid ones, and in the place of each question none or its error.
    async fn read(
        &self,
        questions: &[QuestionFields<'_>],
        errors: &mut ErrorBudget,
    ) -> (Vec<Question>, Vec<Option<pb::Status>>) {
        let mut valid = Vec::with_capacity(questions.len());
        let mut refused = Vec::with_capacity(questions.len());
        let mut slice = Slice::begin();
        for (place, question) in questions.iter().enumerate() {
            slice.pause_if_over().await;
            match convert::question(&self.schema, *question) {
                Ok(question) => {
                    valid.push(question);
                    refused.push(None);
                }
                Err(wrong) => {
                    let outer = format!("questions[{place}]");
                    let wrong: Vec<Violation> = wrong.into_iter().map(|violation| violation.inside(&outer)).collect();
                    refused.push(Some(errors.message(&status::invalid(&wrong))));
                }
            }
        }
        (valid, refused)
    }

    async fn ask_one(&self, question: &Question, admitted: &Admitted<'_>) -> Result<Checked, Status> {
        let checked = self.checker.check_one(question, admitted.consistency, admitted.deadline).await;
        checked.map_err(|error| admitted.status(&error))
    }

    async fn ask_one_with_dependencies(
        &self,
        question: &Question,
        admitted: &Admitted<'_>,
    ) -> Result<(Checked, Option<Dependencies>), Status> {
        let questions = std::slice::from_ref(question);
        let checking = self.checker.check_with_dependencies(questions, admitted.consistency, admitted.deadline);
        let (mut checked, mut dependencies) = checking.await;
        let checked = checked.pop().unwrap_or(Err(CheckError::DeadlineExceeded));
        Ok((checked.map_err(|error| admitted.status(&error))?, dependencies.pop().flatten()))
    }
}

/// The methods.
///
/// Their errors are gRPC statuses, with details (docs/clients.md).
impl PermissionApi {
    /// `Check` from within this process.
    ///
    /// # Errors
    /// The status of the call.
    pub async fn check_in_process(&self, request: &CheckRequest) -> Result<CheckResponse, Status> {
        let response = self.check(&request.encode_to_vec(), &CallContext::in_process()).await?;
        message::decode(message::only(&response)?)
    }

    /// `Check`: takes a `CheckRequest`, and returns a `CheckResponse` as gRPC sends it.
    ///
    /// # Errors
    /// The status of the call.
    pub(super) async fn check(&self, message: &[u8], context: &CallContext) -> Result<Bytes, Status> {
        let CheckFields { question, consistency, dependencies } = CheckFields::read(message)?;
        let mut violations = Vec::new();
        let admitted = self.admit(context, consistency.as_ref(), &mut violations)?;
        let question = valid(convert::question(&self.schema, question), violations)?;
        let (checked, dependencies) = if dependencies && self.domain != 0 {
            // Boxed, as most checks do without and need less memory then.
            Box::pin(self.ask_one_with_dependencies(&question, &admitted)).await?
        } else {
            (self.ask_one(&question, &admitted).await?, None)
        };
        self.record.of(context).answered(&question, &checked);
        let mut answers = Answers::new(&self.schema, self.domain, 1);
        answers.add(&checked, dependencies.as_ref());
        Ok(answers.finish())
    }

    /// `BatchCheck`: takes a `BatchCheckRequest`, and returns a `BatchCheckResponse` as gRPC sends it.
    ///
    /// # Errors
    /// The status of the call.
    pub(super) async fn batch_check(&self, message: &[u8], context: &CallContext) -> Result<Bytes, Status> {
        let BatchFields { questions, consistency, dependencies } = BatchFields::read(message)?;
        let mut violations = Vec::new();
        let admitted = self.admit(context, consistency.as_ref(), &mut violations)?;
        if questions.is_empty() || questions.len() > BATCH_MAX {
            let message = format!("has {} questions: a batch has 1 to 10,000", questions.len());
            violations.push(Violation::new("questions", message));
        }
        if !violations.is_empty() {
            return Err(status::invalid(&violations));
        }
        let mut errors = ErrorBudget(ERROR_BYTES_MAX);
        let (valid, refused) = self.read(&questions, &mut errors).await;
        let (checked, dependencies) = if dependencies && self.domain != 0 {
            let checking = self.checker.check_with_dependencies(&valid, admitted.consistency, admitted.deadline);
            Box::pin(checking).await
        } else {
            (self.checker.check(&valid, admitted.consistency, admitted.deadline).await, Vec::new())
        };
        if let (Some(Err(error)), true) = (checked.first(), refuses_all(&checked)) {
            return Err(admitted.status(error));
        }
        self.record.of(context).answered_all(&valid, &checked);
        let mut checked = checked.into_iter();
        let mut dependencies = dependencies.into_iter();
        let mut answers = Answers::new(&self.schema, self.domain, refused.len());
        let mut slice = Slice::begin();
        for refused in refused {
            slice.pause_if_over().await;
            match refused {
                Some(error) => answers.add_error(&error),
                None => {
                    let dependencies = dependencies.next().flatten();
                    match checked.next().unwrap_or(Err(CheckError::DeadlineExceeded)) {
                        Ok(checked) => answers.add_result(&checked, dependencies.as_ref()),
                        Err(error) => answers.add_error(&errors.message(&admitted.status(&error))),
                    }
                }
            }
        }
        Ok(answers.finish())
    }

    /// `ListPermissions`.
    ///
    /// # Errors
    /// The status of the call.
    pub async fn list_permissions(
        &self,
        request: ListPermissionsRequest,
        context: &CallContext,
    ) -> Result<ListPermissionsResponse, Status> {
        let ListPermissionsRequest { subject, resource, consistency } = request;
        let mut violations = Vec::new();
        let admitted = self.admit(context, consistency.as_ref(), &mut violations)?;
        let schema = &self.schema;
        let questions =
            convert::questions_for_all(schema, subject.as_ref().map(Into::into), resource.as_ref().map(Into::into));
        let questions = valid(questions, violations)?;
        let checked = self.checker.check(&questions, admitted.consistency, admitted.deadline).await;
        self.record.of(context).answered_all(&questions, &checked);
        let permissions = questions.iter().zip(checked).map(|(question, checked)| {
            let checked = checked.map_err(|error| admitted.status(&error))?;
            let permission = schema.permission(question.permission).name.to_string();
            Ok(PermissionAnswer { permission, answer: Some(convert::answer(schema, &checked)) })
        });
        Ok(ListPermissionsResponse { permissions: permissions.collect::<Result<_, Status>>()? })
    }

    /// `Explain`.
    ///
    /// # Errors
    /// The status of the call.
    pub async fn explain(&self, request: ExplainRequest, context: &CallContext) -> Result<ExplainResponse, Status> {
        let ExplainRequest { subject, permission, resource, consistency } = request;
        let mut violations = Vec::new();
        let admitted = self.admit(context, consistency.as_ref(), &mut violations)?;
        let question = QuestionFields {
            subject: subject.as_ref().map(Into::into),
            permission: &permission,
            resource: resource.as_ref().map(Into::into),
        };
        let question = valid(convert::question(&self.schema, question), violations)?;
        let explained = self.checker.explain(&question, admitted.consistency, admitted.deadline).await;
        let explained = explained.map_err(|error| admitted.status(&error))?;
        self.record.of(context).answered(&question, &explained.checked);
        Ok(explanation::response(&self.schema, &question, &explained))
    }
}

/// How many more bytes of errors with their details a response may contain.
struct ErrorBudget(usize);

impl ErrorBudget {
    /// The error with its details, or a short form of it where the details exceed what is left.
    fn message(&mut self, status: &Status) -> pb::Status {
        if status.details().len() > self.0 {
            return status::to_message(&status::shortened(status));
        }
        let whole = status::to_message(status);
        match self.0.checked_sub(whole.encoded_len()) {
            Some(left) => {
                self.0 = left;
                whole
            }
            None => status::to_message(&status::shortened(status)),
        }
    }
}

/// Whether a batch failed as a whole because of its token, before any of its questions was checked.
fn refuses_all(checked: &[Result<Checked, CheckError>]) -> bool {
    checked.iter().all(|result| matches!(result, Err(CheckError::ForeignToken { .. } | CheckError::FutureToken)))
}
