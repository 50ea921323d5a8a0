# The daemon as a container of its own, for machines that run everything in containers. It needs the Engine's socket, so
# whoever reaches into this container owns the host: prefer the plain installation.
FROM python:3.11-slim
WORKDIR /opt/nextdeploy
COPY requirements.txt ./
RUN pip install --no-cache-dir -r requirements.txt
COPY ndactors ./ndactors
COPY web ./web
COPY conf ./conf
ENV PYTHONPATH=/opt/nextdeploy PYTHONUNBUFFERED=1 NEXTDEPLOY_ENV=prod
VOLUME /var/lib/nextdeploy
EXPOSE 80 8090
HEALTHCHECK CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8090/healthz', timeout=3)"]
ENTRYPOINT ["python", "-m", "ndactors"]
CMD ["--config", "/etc/nextdeploy/nextdeploy.yml"]
