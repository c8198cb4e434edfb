"""The sources' entries in Parameter Store, one SecureString each."""

from __future__ import annotations

from functions.adapters.aws_wire import Service, check, codes_of
from functions.core.failure import StorageUnavailable


class SsmSourceParameters:
    """What the cache of sources reads from: the entry of source `x` is the parameter `{path}/x`."""

    def __init__(self, service: Service, path: str) -> None:
        self._service = service
        self._path = path.rstrip("/")

    @staticmethod
    def connect(path: str) -> SsmSourceParameters:
        """As the environment says. Raises ValueError where it says nothing usable."""
        return SsmSourceParameters(Service.connect("ssm"), path)

    def read(self, source_id: str, timeout_seconds: float) -> str | None:
        """The entry's text, or None for ParameterNotFound and nothing else. One try. Raises `StorageUnavailable`.

        The answer must name what was asked for: another source's entry would bring that one's secrets and tenant.
        """
        name = f"{self._path}/{source_id}"
        request = {"Name": name, "WithDecryption": True}
        answer, document = self._service.call_json("AmazonSSM.GetParameter", "1.1", request, timeout_seconds)
        if answer.status == 400 and "ParameterNotFound" in codes_of(answer):
            return None
        check("GetParameter", answer)
        parameter = document.get("Parameter")
        value = parameter.get("Value") if isinstance(parameter, dict) and parameter.get("Name") == name else None
        if not isinstance(value, str):
            raise StorageUnavailable("GetParameter failed: the answer is not what SSM says")
        return value
