output "variables" {
  description = "What the environment's own addresses are: for python_ops and for infra/emr/submit.py."
  value = {
    LAKEHOUSE_HOME            = "s3://${module.lake.name}/${local.home}"
    LAKEHOUSE_RECOVERY        = "s3://${module.recovery.name}/${local.snapshots}"
    LAKEHOUSE_RECOVERY_REGION = var.recovery_region
    LAKEHOUSE_ALERTS_TOPIC    = module.alerts.arn
    AWS_REGION                = var.region
  }
}

output "emr" {
  description = "What infra/emr/submit.py needs to start a job."
  value = {
    application = module.emr.id
    roles       = { for job, role in module.role : job => role.arn }
    deploy      = "s3://${module.lake.name}/${local.deployed}"
    log_uri     = module.emr.log_uri
    log_group   = module.emr.log_group
  }
}

output "redshift_copy" {
  description = "Two fields of the secret `redshift`, with which large tables are loaded by COPY; null where it is no warehouse."
  value = one([for role in aws_iam_role.redshift : {
    iam_role = role.arn
    staging  = "s3://${module.lake.name}/${local.staging}"
  }])
}

output "scheduler_policy" {
  description = "Attach it to the role that Airflow runs as."
  value       = aws_iam_policy.scheduler.arn
}

output "alarms" {
  value = module.monitoring.alarms
}
