//! Accounts: open, deposit, withdraw, close, and read them as they are or as they were.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use domain_example::account::{
    Account, AccountId, AccountRefusal, AccountStatus, AccountView, Balance, CloseAccount, Deposit,
    OpenAccount, OwnerName, Withdraw,
};
use domain_example::{Amount, Currency};
use orchestrix::{Consistency, Done};
use orchestrix_core::{AggregateId, Command, CommandId, Handle, Timestamp, Version};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::extract::{Caller, Form, Id, JsonBody, Params, number};
use super::openapi::{
    CloseAccountProblems, DepositProblems, OpenAccountProblems, ReadAccountProblems, WithdrawProblems,
};
use super::problem::{KEY_HEADER, Kind, Problem, key_value};
use super::{Bank, in_time};

/// What every amount must be.
pub(crate) const AMOUNT_RULE: &str = "give an integer in minor units, 1 to 1000000000000000";

/// What every id must be.
pub(crate) const ID_RULE: &str = "give 1 to 128 letters, digits, '-' and '_'";

/// A new account.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = OpenAccount)]
pub(crate) struct OpenForm {
    /// 1 to 128 letters, digits, `-` and `_`. Without one the command's id is taken.
    #[schema(value_type = Option<String>, min_length = 1, max_length = 128, pattern = "^[A-Za-z0-9_-]+$",
             example = "alice")]
    account_id: Option<AccountId>,
    /// Whose it is: 1 to 200 characters.
    #[schema(value_type = String, min_length = 1, max_length = 200, example = "Alice Archer")]
    owner: OwnerName,
    /// The currency by its three upper-case letters.
    #[schema(value_type = String, pattern = "^[A-Z]{3}$", example = "EUR")]
    currency: Currency,
}

impl Form for OpenForm {
    const FIELDS: &'static [(&'static str, &'static str)] = &[
        ("account_id", ID_RULE),
        ("owner", "give a text of 1 to 200 characters"),
        ("currency", "give three upper-case letters such as EUR"),
    ];
}

/// An amount of money.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Amount)]
pub(crate) struct AmountForm {
    /// In minor units, for instance cents.
    #[schema(value_type = u64, minimum = 1, maximum = 1_000_000_000_000_000_u64, example = 10_000)]
    amount: Amount,
}

impl Form for AmountForm {
    const FIELDS: &'static [(&'static str, &'static str)] = &[("amount", AMOUNT_RULE)];
}

/// A body that says nothing: none at all, or `{}`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Nothing)]
pub(crate) struct NothingForm {}

impl Form for NothingForm {
    const FIELDS: &'static [(&'static str, &'static str)] = &[];

    fn without_body() -> Option<Self> {
        Some(Self {})
    }
}

/// What a command did.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Receipt)]
pub(crate) struct ReceiptAnswer {
    /// The account.
    account_id: String,
    /// The account's version after the command.
    version: u64,
    /// The account's balance after the command, in minor units.
    balance: u64,
    /// The command's id. A request that repeats it as its `Idempotency-Key` gets this answer again.
    #[schema(value_type = String, format = "uuid")]
    command_id: CommandId,
}

/// An account.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Account)]
pub(crate) struct AccountAnswer {
    /// The account's id.
    account_id: String,
    /// Whose it is.
    owner: String,
    /// The currency by its three letters.
    currency: String,
    /// In minor units.
    balance: u64,
    /// `open` or `closed`.
    #[schema(example = "open")]
    status: &'static str,
    /// How many events have made it what it is.
    version: u64,
}

/// Opens an account.
#[utoipa::path(
    post, path = "/accounts", tag = "accounts", request_body = OpenForm,
    params(("Idempotency-Key" = Option<String>, Header, description = "A UUID that makes a retry harmless")),
    responses((status = 201, description = "It is open", body = ReceiptAnswer), OpenAccountProblems)
)]
pub(crate) async fn open(
    State(bank): State<Bank>,
    caller: Caller,
    JsonBody(form): JsonBody<OpenForm>,
) -> Result<Response, Problem> {
    let OpenForm { account_id, owner, currency } = form;
    // A retry carries the same key, so without an id of its own it must come to the same account.
    let id = account_id.unwrap_or_else(|| id_from(caller.command_id));
    let done = send(&bank, &caller, &id, OpenAccount { owner, currency }).await?;
    let mut response = receipt(StatusCode::CREATED, &id, &done);
    let place = HeaderValue::from_str(&format!("/accounts/{id}")).expect("an account id is plain ASCII");
    response.headers_mut().insert(header::LOCATION, place);
    Ok(response)
}

/// Pays money in.
#[utoipa::path(
    post, path = "/accounts/{id}/deposit", tag = "accounts", request_body = AmountForm,
    params(
        ("id" = String, Path, description = "The account's id"),
        ("Idempotency-Key" = Option<String>, Header, description = "A UUID that makes a retry harmless")
    ),
    responses((status = 200, description = "It is paid in", body = ReceiptAnswer), DepositProblems)
)]
pub(crate) async fn deposit(
    State(bank): State<Bank>,
    caller: Caller,
    Id(id): Id<AccountId>,
    JsonBody(form): JsonBody<AmountForm>,
) -> Result<Response, Problem> {
    let done = send(&bank, &caller, &id, Deposit { amount: form.amount }).await?;
    Ok(receipt(StatusCode::OK, &id, &done))
}

/// Pays money out.
#[utoipa::path(
    post, path = "/accounts/{id}/withdraw", tag = "accounts", request_body = AmountForm,
    params(
        ("id" = String, Path, description = "The account's id"),
        ("Idempotency-Key" = Option<String>, Header, description = "A UUID that makes a retry harmless")
    ),
    responses((status = 200, description = "It is paid out", body = ReceiptAnswer), WithdrawProblems)
)]
pub(crate) async fn withdraw(
    State(bank): State<Bank>,
    caller: Caller,
    Id(id): Id<AccountId>,
    JsonBody(form): JsonBody<AmountForm>,
) -> Result<Response, Problem> {
    let done = send(&bank, &caller, &id, Withdraw { amount: form.amount }).await?;
    Ok(receipt(StatusCode::OK, &id, &done))
}

/// Closes an account for good.
#[utoipa::path(
    post, path = "/accounts/{id}/close", tag = "accounts",
    params(
        ("id" = String, Path, description = "The account's id"),
        ("Idempotency-Key" = Option<String>, Header, description = "A UUID that makes a retry harmless")
    ),
    responses((status = 200, description = "It is closed", body = ReceiptAnswer), CloseAccountProblems)
)]
pub(crate) async fn close(
    State(bank): State<Bank>,
    caller: Caller,
    Id(id): Id<AccountId>,
    _: JsonBody<NothingForm>,
) -> Result<Response, Problem> {
    let done = send(&bank, &caller, &id, CloseAccount {}).await?;
    Ok(receipt(StatusCode::OK, &id, &done))
}

/// Which state of the account to show. The three exclude each other: the past is the same for everybody.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct AccountQuery {
    /// `leased` (default), `confirmed` or `local`: how sure the answer must be that no other node has taken over.
    consistency: Option<String>,
    /// The version that the account must have reached, for instance the one that a command was just answered with, so
    /// that also a `local` answer shows it. A version that it has not reached is a 404.
    #[param(value_type = Option<u64>, minimum = 1)]
    min_version: Option<String>,
    /// The account as it was at this version, from 1. A version that it has not reached is a 404.
    #[param(value_type = Option<u64>, minimum = 1)]
    at_version: Option<String>,
    /// The account as it was at this moment (RFC 3339). A moment to come shows the newest state.
    #[param(value_type = Option<String>, format = "date-time")]
    at_time: Option<String>,
}

impl Form for AccountQuery {
    const FIELDS: &'static [(&'static str, &'static str)] = &[
        ("consistency", "give leased, confirmed or local"),
        ("min_version", "give an integer from 1"),
        ("at_version", "give an integer from 1"),
        ("at_time", "give an RFC 3339 time such as 2026-01-31T12:00:00Z, with '+' written as %2B"),
    ];
}

/// The state that a query asks for.
enum Wanted {
    Now(Consistency, Version),
    AtVersion(Version),
    AtTime(Timestamp),
}

impl AccountQuery {
    fn wanted(&self) -> Result<Wanted, Problem> {
        let versions = 1..=u64::MAX >> 1;
        let version = number::<Self>("at_version", self.at_version.as_deref(), versions.clone())?;
        let min_version = number::<Self>("min_version", self.min_version.as_deref(), versions)?;
        let is_of_now = self.consistency.is_some() || min_version.is_some();
        match (version, self.at_time.as_deref()) {
            (None, None) => {
                let min_version = Version::new(min_version.unwrap_or_default());
                Ok(Wanted::Now(consistency_of(self.consistency.as_deref())?, min_version))
            }
            (Some(version), None) if !is_of_now => Ok(Wanted::AtVersion(Version::new(version))),
            (None, Some(time)) if !is_of_now => time_of(time).map(Wanted::AtTime),
            (Some(_), _) => Err(Problem::invalid("at_version", ALONE)),
            (None, Some(_)) => Err(Problem::invalid("at_time", ALONE)),
        }
    }
}

const ALONE: &str =
    "excludes the other parameters; give at_version, or at_time, or consistency and min_version";

fn consistency_of(text: Option<&str>) -> Result<Consistency, Problem> {
    match text {
        None | Some("leased") => Ok(Consistency::Leased),
        Some("confirmed") => Ok(Consistency::Confirmed),
        Some("local") => Ok(Consistency::Local),
        Some(_) => Err(Problem::invalid("consistency", "is unknown; give leased, confirmed or local")),
    }
}

fn time_of(text: &str) -> Result<Timestamp, Problem> {
    text.parse().map_err(|_| {
        let rule = "is no RFC 3339 time; give one such as 2026-01-31T12:00:00Z, with '+' written as %2B";
        Problem::invalid("at_time", rule)
    })
}

/// Shows an account as it is, or as it was.
#[utoipa::path(
    get, path = "/accounts/{id}", tag = "accounts",
    params(("id" = String, Path, description = "The account's id"), AccountQuery),
    responses((status = 200, description = "The account", body = AccountAnswer), ReadAccountProblems)
)]
pub(crate) async fn show(
    State(bank): State<Bank>,
    Id(id): Id<AccountId>,
    Params(query): Params<AccountQuery>,
) -> Result<Json<AccountAnswer>, Problem> {
    let wanted = query.wanted()?;
    let account = bank.node.of::<Account>(id.clone());
    let (view, version) = match wanted {
        Wanted::Now(consistency, min_version) => {
            let read = account.reading(Account::view).consistency(consistency).min_version(min_version);
            let seen = read.await?;
            (seen.value, seen.version)
        }
        Wanted::AtVersion(version) => {
            let past = in_time(account.load_at_version(version)).await?;
            (past.state.view(), past.version)
        }
        Wanted::AtTime(time) => {
            let past = in_time(account.load_at_time(time)).await?;
            (past.state.view(), past.version)
        }
    };
    view.map(|view| Json(answer(&id, view, version))).ok_or_else(|| no_account(&id))
}

/// Tells whether an account was ever opened.
pub(super) async fn exists(bank: &Bank, id: &AccountId) -> Result<bool, Problem> {
    let account = bank.node.of::<Account>(id.clone());
    Ok(account.read(Consistency::Leased, |account| account.view().is_some()).await?)
}

/// Makes the problem of an account that is not there.
pub(super) fn no_account(id: &AccountId) -> Problem {
    Problem::new(Kind::AccountNotFound, format!("account {id} does not exist, or did not at that time"))
}

/// Takes a command's id for the id of what it creates.
pub(super) fn id_from<I: AggregateId>(command_id: CommandId) -> I {
    I::from_key(&command_id.to_string()).expect("a UUID is made of letters, digits and '-'")
}

fn answer(id: &AccountId, view: AccountView, version: Version) -> AccountAnswer {
    let AccountView { owner, currency, balance, status } = view;
    let status = match status {
        AccountStatus::Open => "open",
        AccountStatus::Closed => "closed",
    };
    AccountAnswer { account_id: id.to_string(), owner, currency, balance, status, version: version.get() }
}

async fn send<C>(bank: &Bank, caller: &Caller, id: &AccountId, command: C) -> Result<Done<Balance>, Problem>
where
    Account: Handle<C>,
    C: Command<Reply = Balance, Refusal = AccountRefusal>,
{
    let account = bank.node.of::<Account>(id.clone());
    let sending = account.send(command).id(caller.command_id).metadata(caller.metadata.clone());
    let sent = sending.receipt().await;
    sent.map_err(|error| Problem::from_send(error, caller.command_id, |refusal| refused(id, refusal)))
}

fn refused(id: &AccountId, refusal: AccountRefusal) -> Problem {
    let kind = match refusal {
        AccountRefusal::NotFound => Kind::AccountNotFound,
        AccountRefusal::AlreadyExists => Kind::AccountExists,
        AccountRefusal::Closed => Kind::AccountClosed,
        AccountRefusal::InsufficientFunds { .. } => Kind::InsufficientFunds,
        AccountRefusal::BalanceTooLarge { .. } => Kind::BalanceTooLarge,
        AccountRefusal::NotEmpty { .. } => Kind::AccountNotEmpty,
    };
    Problem::new(kind, format!("account {id}: {refusal}"))
}

fn receipt(status: StatusCode, id: &AccountId, done: &Done<Balance>) -> Response {
    let answer = ReceiptAnswer {
        account_id: id.to_string(),
        version: done.version.get(),
        balance: done.reply.0,
        command_id: done.command_id,
    };
    let mut response = (status, Json(answer)).into_response();
    response.headers_mut().insert(KEY_HEADER, key_value(done.command_id));
    response
}
