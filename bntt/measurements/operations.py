"""Energy of an operation in pJ (Table 2), and ways to count a spiking layer's operations (Section 4.3, Appendix B)."""

MAC_PJ = 4.6  # a multiply-accumulate of a dense layer
AC_PJ = 0.9  # an accumulate of a spiking layer
ACCOUNTINGS = ("own", "events", "mass")  # columns of energy.csv, explained there; the first is the paper's
