"""The client: one connection to a broker, for providers, guardians, auditors and the operator.

=============================================  ====================================================================
:mod:`permslip.client.providing`               ``AsyncClient``: grants, profiles, records
:mod:`permslip.client.guarding`                ``AsyncGuardianClient``: link, grant, watch, revoke
:mod:`permslip.client.operating`               ``AsyncOperatorClient``: admit, suspend, register
:mod:`permslip.client.auditing`                ``AsyncAuditorClient``: ledgers, statements, proofs
:mod:`permslip.client.blocking`                the same without ``await``
:mod:`permslip.client.blocking_auditing`       the auditor's without ``await``
:mod:`permslip.client.exchange`                the one pipelined stream
:mod:`permslip.client.answers`                 one answer, verified as it arrives
:mod:`permslip.client.asking`                  what to ask whom, asking again, pages
:mod:`permslip.client.session`                 greetings, calls, the directory
=============================================  ====================================================================

Import from :mod:`permslip` itself: ``from permslip import Client``.
"""
