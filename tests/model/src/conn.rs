//! The driver's slots, and the line for them.

#[path = "../../../src/conn/pool.rs"]
#[expect(dead_code, reason = "the scenarios use the part that threads share")]
pub mod pool;
pub(crate) mod pages {
    //! No scenario has pages.

    pub(crate) struct Piece<H>(core::marker::PhantomData<fn() -> H>);
}
#[path = "../../../src/conn/slot.rs"]
#[expect(dead_code, reason = "as above")]
pub(crate) mod slot;
