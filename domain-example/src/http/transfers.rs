//! Transfers: order one, and see what became of it.
//!
//! The answer to an order is 202: it is recorded, and the [driver](crate::driver) carries it out after the answer.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use domain_example::Amount;
use domain_example::account::AccountId;
use domain_example::transfer::{
    RequestTransfer, Transfer, TransferId, TransferRefusal, TransferStatus, TransferView,
};
use orchestrix::Consistency;
use orchestrix_core::CommandId;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Bank;
use super::accounts::{AMOUNT_RULE, ID_RULE, id_from};
use super::extract::{Caller, Form, Id, JsonBody};
use super::openapi::{ReadTransferProblems, RequestTransferProblems};
use super::problem::{KEY_HEADER, Kind, Problem, key_value};

/// An order to move money.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = RequestTransfer)]
pub(crate) struct TransferForm {
    /// 1 to 128 letters, digits, `-` and `_`. Without one the command's id is taken.
    #[schema(value_type = Option<String>, min_length = 1, max_length = 128, pattern = "^[A-Za-z0-9_-]+$",
             example = "rent-2026-01")]
    transfer_id: Option<TransferId>,
    /// The account that pays.
    #[schema(value_type = String, min_length = 1, max_length = 128, pattern = "^[A-Za-z0-9_-]+$", example = "alice")]
    from: AccountId,
    /// The account that is paid. It keeps the same currency.
    #[schema(value_type = String, min_length = 1, max_length = 128, pattern = "^[A-Za-z0-9_-]+$", example = "bob")]
    to: AccountId,
    /// In minor units, for instance cents.
    #[schema(value_type = u64, minimum = 1, maximum = 1_000_000_000_000_000_u64, example = 2_500)]
    amount: Amount,
}

impl Form for TransferForm {
    const FIELDS: &'static [(&'static str, &'static str)] =
        &[("transfer_id", ID_RULE), ("from", ID_RULE), ("to", ID_RULE), ("amount", AMOUNT_RULE)];
}

/// A transfer.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Transfer)]
pub(crate) struct TransferAnswer {
    /// The transfer's id.
    transfer_id: String,
    /// `pending`, `completed` or `refused`. A refused transfer has moved nothing, or given everything back.
    #[schema(example = "completed")]
    status: &'static str,
    /// The account that pays.
    from: String,
    /// The account that is paid.
    to: String,
    /// In minor units.
    amount: u64,
    /// Why it was refused, or is about to be.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// The id of the command that ordered it, in the answer to the order.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = "uuid")]
    command_id: Option<CommandId>,
}

/// Orders a transfer. It is carried out after the answer; `GET /transfers/{id}` shows what became of it.
#[utoipa::path(
    post, path = "/transfers", tag = "transfers", request_body = TransferForm,
    params(("Idempotency-Key" = Option<String>, Header, description = "A UUID that makes a retry harmless")),
    responses(
        (status = 202, description = "It is ordered", body = TransferAnswer),
        RequestTransferProblems
    )
)]
pub(crate) async fn request(
    State(bank): State<Bank>,
    caller: Caller,
    JsonBody(form): JsonBody<TransferForm>,
) -> Result<Response, Problem> {
    let TransferForm { transfer_id, from, to, amount } = form;
    let command_id = caller.command_id;
    let id = transfer_id.unwrap_or_else(|| id_from(command_id));
    // First a place at the driver, then the order: what is accepted is also carried out.
    let place = bank.driver.reserve(&id).map_err(|error| Problem::from(error).of_command(command_id))?;
    let command = RequestTransfer { from: from.clone(), to: to.clone(), amount };
    let sending = bank.node.of::<Transfer>(id.clone()).send(command).id(command_id).metadata(caller.metadata);
    let done = sending
        .receipt()
        .await
        .map_err(|error| Problem::from_send(error, command_id, |refusal| refused(&id, &refusal)))?;
    if let Some(place) = place {
        bank.driver.drive(place);
    }
    let view = TransferView { from, to, amount: amount.minor_units(), status: done.reply, reason: None };
    let answer = TransferAnswer { command_id: Some(command_id), ..answer(&id, view) };
    let mut response = (StatusCode::ACCEPTED, Json(answer)).into_response();
    let place = HeaderValue::from_str(&format!("/transfers/{id}")).expect("a transfer id is plain ASCII");
    response.headers_mut().insert(header::LOCATION, place);
    response.headers_mut().insert(KEY_HEADER, key_value(command_id));
    Ok(response)
}

/// Shows a transfer.
#[utoipa::path(
    get, path = "/transfers/{id}", tag = "transfers",
    params(("id" = String, Path, description = "The transfer's id")),
    responses((status = 200, description = "The transfer", body = TransferAnswer), ReadTransferProblems)
)]
pub(crate) async fn show(
    State(bank): State<Bank>,
    Id(id): Id<TransferId>,
) -> Result<Json<TransferAnswer>, Problem> {
    let transfer = bank.node.of::<Transfer>(id.clone());
    let view = transfer.read(Consistency::Leased, |transfer| transfer.view().cloned()).await?;
    let not_found = || Problem::new(Kind::TransferNotFound, format!("transfer {id} does not exist"));
    let view = view.ok_or_else(not_found)?;
    if matches!(view.status, TransferStatus::Pending | TransferStatus::Returning) {
        // One that an earlier run left behind goes on. When the driver has no place for it, a later look tries again.
        if let Ok(Some(place)) = bank.driver.reserve(&id) {
            bank.driver.drive(place);
        }
    }
    Ok(Json(answer(&id, view)))
}

fn answer(id: &TransferId, view: TransferView) -> TransferAnswer {
    let TransferView { from, to, amount, status, reason } = view;
    TransferAnswer {
        transfer_id: id.to_string(),
        status: match status {
            TransferStatus::Pending | TransferStatus::Returning => "pending",
            TransferStatus::Completed => "completed",
            TransferStatus::Refused => "refused",
        },
        from: from.to_string(),
        to: to.to_string(),
        amount,
        reason,
        command_id: None,
    }
}

fn refused(id: &TransferId, refusal: &TransferRefusal) -> Problem {
    match refusal {
        TransferRefusal::SameAccount { .. } => Problem::invalid("to", refusal),
        TransferRefusal::NotFound => {
            Problem::new(Kind::TransferNotFound, format!("transfer {id}: {refusal}"))
        }
        TransferRefusal::AlreadyExists
        | TransferRefusal::Returning
        | TransferRefusal::AlreadyRefused
        | TransferRefusal::AlreadyCompleted => {
            Problem::new(Kind::TransferExists, format!("transfer {id}: {refusal}"))
        }
    }
}
