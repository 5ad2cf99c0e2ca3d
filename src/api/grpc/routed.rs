//! The way of a call: the service that most calls are for is called directly, since tonic's router would ask of each what
//! the door knows already; all others go through the router.

use std::{
    convert::Infallible,
    task::{Context, Poll},
};

use futures_util::future::Either;
use http::{Request, Response};
use tonic::{body::Body, server::NamedService, service::Routes};
use tower::Service;

/// A service as tonic makes it of the schema's.
pub trait Served:
    Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send>
    + NamedService
    + Clone
    + Send
    + Sync
    + 'static
{
}

impl<S> Served for S where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible, Future: Send>
        + NamedService
        + Clone
        + Send
        + Sync
        + 'static
{
}

/// A service, and others.
#[derive(Clone, Debug)]
pub struct Routed<M> {
    /// Most calls are for this one.
    main: M,
    others: Routes,
}

impl<M> Routed<M> {
    /// Calls of `main` go there, all others to these.
    pub fn new(main: M, others: Routes) -> Self {
        Self { main, others }
    }
}

/// A path is a slash, the service's name, a slash and the method's.
fn is_of<M: NamedService>(path: &str) -> bool {
    let rest = path.strip_prefix('/').and_then(|path| path.strip_prefix(M::NAME));
    rest.is_some_and(|method| method.starts_with('/'))
}

impl<M: Served> Service<Request<Body>> for Routed<M> {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Either<M::Future, <Routes as Service<Request<Body>>>::Future>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // What tonic makes is always ready.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        if is_of::<M>(request.uri().path()) {
            Either::Left(self.main.call(request))
        } else {
            Either::Right(self.others.call(request))
        }
    }
}
